"""The progress pages of simulated pods: one server that answers in the name of each, told apart by the address asked.

`python -m cluster.simulated_pages KUBECONFIG PORT`, in the folder tests. `POST /move` lets every run make steps from
then on, `POST /rest` lets them stand still.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from ltx2_operator.pods import ATTEMPT_LABEL, STAGE_LABEL, UID_LABEL
from ltx2_operator.runtime.bucket import TokenBucket
from ltx2_operator.runtime.client import Api, configuration
from ltx2_operator.runtime.kinds import PODS
from ltx2_operator.runtime.queue import Key
from ltx2_operator.runtime.reflector import Reflector, Store

MOST = 100_000  # steps
STEPS_A_SECOND = 0.75


class Pages:
    """What the pages say now."""

    def __init__(self, api: Api) -> None:
        self.pods = Store(self._changed)
        self._labels: dict[str, dict[str, str]] = {}
        self._steps, self._moves_since = 1000.0, 0.0
        Reflector(api, PODS, self.pods, None, 3600).start()

    def move(self) -> None:
        """Runs make steps from now on."""
        self._moves_since = self._moves_since or time.monotonic()

    def rest(self) -> None:
        """Runs stand still from now on."""
        self._steps, self._moves_since = float(self.step), 0.0

    @property
    def step(self) -> int:
        """Where every run is."""
        moved = (time.monotonic() - self._moves_since) * STEPS_A_SECOND if self._moves_since else 0.0
        return int(self._steps + moved)

    def of(self, address: str) -> dict[str, Any] | None:
        """The page of the pod at an address, None where there is no pod of a training."""
        labels = self._labels.get(address)
        if labels is None:
            return None
        step = self.step
        return {
            "uid": labels[UID_LABEL], "attempt": int(labels[ATTEMPT_LABEL]), "stage": labels[STAGE_LABEL],
            "state": "training", "step": step, "maxSteps": MOST, "loss": round(1 / step, 6), "secondsPerStep": 1.333,
            "etaSeconds": int((MOST - step) * 1.333), "items": {"done": 40, "total": 40, "skipped": 0},
            "checkpoint": {"step": 1000, "path": "runs/x/checkpoints/step-0001000", "time": "2026-01-01T00:00:00Z"},
        }  # fmt: skip

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of one connection."""
        try:
            method, path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[:2]
            code, page = "200 OK", {}
            if method == b"POST":
                (self.move if path == b"/move" else self.rest)()
            else:
                found = self.of(writer.get_extra_info("sockname")[0])
                code, page = ("200 OK", found) if found else ("404 Not Found", {})
            body = json.dumps(page).encode()
            writer.write(f"HTTP/1.1 {code}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _changed(self, key: Key) -> None:
        for pod in self.pods.of(key):
            address = (pod.get("status") or {}).get("podIP")
            if address and pod["status"].get("phase") == "Running":
                self._labels[address] = pod["metadata"]["labels"]


async def serve(kubeconfig: Path, port: int) -> None:
    """Answer until ended."""
    found, _ = configuration(str(kubeconfig))
    pages = Pages(Api(found, TokenBucket(100, 100), timeout=30, connections=2, agent="simulated-pages"))
    server = await asyncio.start_server(pages.answer, "0.0.0.0", port, backlog=1024)  # any address of the loopback
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
