"""A server on this machine that plays a hub or an API server: fixed answers by method and path."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class StandIn:
    """answers: "GET /path" -> (status, JSON), or "hang" to accept and never answer. asked: (method path, headers)."""

    answers: dict[str, tuple[int, Any] | str]
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(answers: dict[str, tuple[int, Any] | str]) -> Iterator[StandIn]:
    """A running server; whatever has no answer is 404."""
    stand_in, over = StandIn(answers), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            what = f"{self.command} {self.path.partition('?')[0]}"
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            stand_in.asked.append((what, dict(self.headers), json.loads(body) if body else None))
            answer = stand_in.answers.get(what, (404, {"kind": "Status", "status": "Failure", "code": 404}))
            if isinstance(answer, str):
                over.wait()
                return
            raw = json.dumps(answer[1]).encode()
            self.send_response(answer[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

        do_GET = do_HEAD = do_POST = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stand_in
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
