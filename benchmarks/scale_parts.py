"""Parts of operator_scale.py: thousands of trainings, an operator with a limit, and what the audit log says of it."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from cluster.harness.alone import free_ports  # noqa: E402
from cluster.harness.devices import NVIDIA  # noqa: E402
from cluster.harness.simulated import Simulated, bring_up  # noqa: E402
from cluster.installed import ACCOUNT, DEPLOYMENT, NAMESPACE, RELEASE, Installed  # noqa: E402
from cluster.operators import token_of  # noqa: E402
from ltx2_operator.runtime.bucket import TokenBucket  # noqa: E402
from ltx2_operator.runtime.client import MERGE, Api, configuration  # noqa: E402
from ltx2_operator.runtime.kinds import PODS, TRAININGS  # noqa: E402

SPACES = 10
GPUS_A_NODE = 8
MEMORY = 512 * 2**20
ASK = "simulated.test/"
PAGE = 500

# --------------------------------------------------------------------------------------------------------- the cluster


class Share(NamedTuple):
    """How many trainings there are, how many of them run, and how many wait for a GPU that no node has."""

    trainings: int
    running: int
    waiting: int

    def state(self, number: int) -> str:
        """The state that a training shall be in; those that run come first, then those that wait."""
        if number < self.running:
            return "Running"
        return "Waiting" if number < self.running + self.waiting else "Succeeded"

    @property
    def states(self) -> dict[str, int]:
        """How many in which."""
        return dict(Counter(map(self.state, range(self.trainings))))


def training(name: str, state: str) -> dict[str, Any]:
    """One of a real size: on an H100, where its train pod runs on and on; on an H200 that no node has; or finished,
    with its result on its volume.
    """
    manifest = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    manifest["metadata"] = {"name": name, "labels": {"team": "films"}}
    done = {f"{ASK}result": f"runs/{name}/lora.safetensors"}
    annotations = done if state == "Succeeded" else {f"{ASK}train": "240h"}
    manifest["spec"] |= {
        "gpu": {"class": "h200" if state == "Waiting" else "h100-80g"}, "storage": {"claimName": "data"}, "retries": 20,
        "startDeadlineSeconds": 24 * 3600,
        "podTemplate": {"metadata": {"annotations": annotations}},
    }  # fmt: skip
    manifest["spec"]["config"] |= {"pretrained_model_name_or_path": "Lightricks/LTX-2", "max_train_steps": 100_000}
    return dict(manifest)


@dataclass
class World:
    """A control plane with simulated nodes, the chart's objects, and trainings."""

    plane: Simulated
    folder: Path
    api: Api
    pages: int
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, running: int) -> Iterator["World"]:
        """Everything but trainings; gone afterwards."""
        plane = bring_up(folder / "plane", audit_bodies=False)
        try:
            nodes = -(-running // GPUS_A_NODE) + 1
            plane.add_nodes([f"gpu-{number:03}" for number in range(nodes)], *NVIDIA, GPUS_A_NODE)
            Installed(plane.kubectl, plane.kubeconfig).install()
            for space in spaces():
                plane.kubectl("create", "namespace", space)
                plane.add_claim(space)
            found, _ = configuration(str(plane.kubeconfig))
            api = Api(found, TokenBucket(1000, 1000), timeout=60, connections=16, agent="operator-scale")
            world = cls(plane, folder, api, free_ports(1)[0])
            world._serve_pages()
            try:
                yield world
            finally:
                for child in world.children:
                    child.kill()
                    child.wait()
        finally:
            plane.end()

    def create(self, share: Share) -> None:
        """Let users apply them."""

        def one(number: int) -> None:
            manifest = training(name_of(number), share.state(number))
            self.api.request("POST", TRAININGS.path(space_of(number)), body=manifest)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(share.trainings)))

    def states(self) -> Counter[str]:
        """How many trainings are in which state."""
        found: Counter[str] = Counter()
        query: dict[str, Any] = {"limit": PAGE}
        while True:
            page = self.api.get(TRAININGS.path(), query)
            found.update(str((one.get("status") or {}).get("state") or "New") for one in page["items"])
            if not page["metadata"].get("continue"):
                return found
            query["continue"] = page["metadata"]["continue"]

    def end_pod(self, number: int, code: int) -> None:
        """Let the train pod of a training leave with this exit code."""
        selector = f"ltx2.dev/training={name_of(number)},ltx2.dev/stage=train"
        path = PODS.path(space_of(number))
        for pod in self.api.get(path, {"labelSelector": selector})["items"]:
            if pod["status"]["phase"] == "Running":
                patch = {"metadata": {"annotations": {f"{ASK}end": str(code)}}}
                self.api.request(
                    "PATCH", PODS.path(space_of(number), pod["metadata"]["name"]), body=patch, content=MERGE
                )

    def tell_pages(self, what: str) -> None:
        """`move` or `rest`."""
        import urllib.request

        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{self.pages}/{what}", method="POST"), timeout=30
        )

    def _serve_pages(self) -> None:
        command = [sys.executable, "-m", "cluster.simulated_pages", str(self.plane.kubeconfig), str(self.pages)]
        with (self.folder / "pages.log").open("wb") as log:
            bound = ["setpriv", "--pdeathsig", "KILL", *command]
            self.children.append(subprocess.Popen(bound, cwd=ROOT / "tests", stderr=log, stdout=log))


def name_of(number: int) -> str:
    """The name of a training."""
    return f"style-{number:05}"


def space_of(number: int) -> str:
    """Its namespace."""
    return f"team-{number % SPACES}"


def spaces() -> list[str]:
    """All namespaces with trainings."""
    return [space_of(number) for number in range(SPACES)]


# -------------------------------------------------------------------------------------------------------- the operator


class Limits:
    """A control group with one processor and 512 MiB, in either version of the kernel's interface."""

    def __init__(self) -> None:
        root, name = Path("/sys/fs/cgroup"), f"operator-scale-{os.getpid()}"
        if (root / "cgroup.controllers").exists():
            self.groups = [root / name]
            values = {"cpu.max": "100000 100000", "memory.max": str(MEMORY)}
            with contextlib.suppress(OSError):
                (root / "cgroup.subtree_control").write_text("+cpu +memory")
        else:
            self.groups = [root / "cpu" / name, root / "memory" / name]
            values = {
                "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000", "memory.limit_in_bytes": str(MEMORY),
            }  # fmt: skip
        for group in self.groups:
            group.mkdir()
        for file, value in values.items():
            target = next(group / file for group in self.groups if (group / file).exists())
            target.write_text(value)

    def join(self) -> None:
        """Put the calling process into it."""
        for group in self.groups:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        """Once its processes are gone."""
        for group in self.groups:
            group.rmdir()


class Operator:
    """`ltx2 operator` with the chart's settings and the token of its service account, in a process with limits.

    settings: parts of the settings file to be other than the chart's. limits: None: none.
    """

    def __init__(self, world: World, label: str, limits: Limits | None, **settings: Any) -> None:
        folder = world.folder / label
        folder.mkdir()
        kubeconfig = token_of(world.plane, NAMESPACE, DEPLOYMENT, folder)
        written = world.plane.kubectl.get("configmap", f"{RELEASE}-settings", "-n", NAMESPACE)
        self.settings = yaml.safe_load(written["data"]["settings.yaml"]) | {"port": free_ports(1)[0]} | settings
        self.settings["jobs"]["metricsPort"] = world.pages
        (folder / "settings.yaml").write_text(json.dumps(self.settings))
        self.log, self.identity = folder / "operator.log", label
        command = [str(Path(sys.executable).parent / "ltx2"), "operator", "--kubeconfig", str(kubeconfig)]
        self.began = time.time()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command, "--settings", str(folder / "settings.yaml")],
                stderr=log, preexec_fn=limits.join if limits else None,
                env={**os.environ, "POD_NAMESPACE": NAMESPACE, "POD_NAME": label},
            )  # fmt: skip

    def said(self, words: str, patience: float) -> dict[str, Any]:
        """The line of its log with these words. Raises RuntimeError if it does not come or the process ends."""
        end = time.monotonic() + patience
        while time.monotonic() < end and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if words in line:
                    return dict(json.loads(line))
            time.sleep(0.1)
        raise RuntimeError(f"the operator did not say {words!r}: {self.log.read_text()[-2000:]}")

    def seconds_until(self, words: str, patience: float) -> float:
        """From the start of the process until it says these words."""
        at = datetime.fromisoformat(self.said(words, patience)["time"]).timestamp()
        return round(at - self.began, 2)

    def memory(self) -> dict[str, float]:
        """MiB resident: now, and at the most."""
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines())
        return {
            name: round(int(lines[key].split()[0]) / 1024, 1) for name, key in (("now", "VmRSS"), ("most", "VmHWM"))
        }

    def processor(self) -> float:
        """Seconds computed so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """SIGTERM, and wait."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


# ------------------------------------------------------------------------------------------------------- the audit log


@dataclass(frozen=True)
class Request:
    """One request as the API server saw it; times in seconds."""

    user: str
    verb: str
    what: str
    name: str
    uri: str
    code: int
    came: float
    done: float


def requests(audit: Path, since: int, until: int | None = None) -> list[Request]:
    """The requests that were logged between two sizes of the log."""
    found = []
    with audit.open("rb") as file:
        file.seek(since)
        rest = file.read() if until is None else file.read(until - since)
    for line in rest[: rest.rfind(b"\n") + 1].splitlines():
        entry = json.loads(line)
        about = entry.get("objectRef") or {}
        parts = filter(None, (about.get("resource"), about.get("subresource")))
        came, done = (
            datetime.fromisoformat(entry[key]).timestamp() for key in ("requestReceivedTimestamp", "stageTimestamp")
        )
        code = int((entry.get("responseStatus") or {}).get("code") or 0)
        made = Request(
            entry["user"]["username"], entry["verb"], "/".join(parts), about.get("name", ""), entry["requestURI"], code,
            came, done,
        )  # fmt: skip
        found.append(made)
    return found


def writes(found: Sequence[Request]) -> Counter[str]:
    """The operator's writes but for its Lease, counted by verb, object and field manager."""
    mine = [one for one in found if one.user == ACCOUNT and one.verb not in ("get", "list", "watch")]
    return Counter(
        f"{one.verb} {one.what}{' ' + manager(one) if manager(one) else ''}" for one in mine if one.what != "leases"
    )


def manager(request: Request) -> str:
    """The field manager of a write."""
    return next((part[13:] for part in request.uri.split("?")[-1].split("&") if part.startswith("fieldManager=")), "")


def reaction(found: Sequence[Request], number: int, window: float) -> dict[str, Any] | None:
    """How the operator answered to the end of a training's Job: seconds until its status write, requests in all.

    window: seconds from the end in which requests about it count as caused by it.
    """
    name = name_of(number)
    ends = [
        one for one in found
        if one.what == "jobs/status" and one.name == f"{name}-train-1" and one.code == 200 and one.user != ACCOUNT
    ]  # fmt: skip
    if not ends:
        return None
    end = ends[-1].done  # the last one brings the Job's condition
    mine = [
        one for one in found
        if one.user == ACCOUNT and end - 1 <= one.came <= end + window and manager(one) != "ltx2-progress"
        and (one.name == name or one.name.startswith((f"{name}-", f"{name}.")) or f"{name}" in one.uri)
    ]  # fmt: skip
    told = [one for one in mine if one.what == "ltx2trainings/status" and one.came >= end - 0.005 and one.code == 200]
    if not told:
        return None
    return {"seconds": max(0.0, told[0].came - end), "stored": max(0.0, told[0].done - end), "requests": len(mine)}


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, 95th percentile, least and most."""
    found = sorted(values)
    middle = found[len(found) // 2] if len(found) % 2 else (found[len(found) // 2 - 1] + found[len(found) // 2]) / 2
    named = {
        "median": middle,
        "p95": found[min(len(found) - 1, int(0.95 * len(found)))],
        "min": found[0],
        "max": found[-1],
    }
    return {key: round(value, digits) for key, value in named.items()}


def chosen(running: int, changes: int) -> list[int]:
    """Which of the running trainings are made to end, the same ones each time."""
    return random.Random(7).sample(range(running), changes)
