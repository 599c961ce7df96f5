"""`make soak`, or `python -m cluster.soak` in the folder tests: needs root, Go and containerd, as `make cluster`."""

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

import budgets
from clips import demo_clips
from ltx2_job.models.tiny import write_tiny
from ltx2_operator.pods import UID, WORKSPACE
from patience import every

from ..harness import build_images, cluster
from ..harness.binaries import Missing
from ..harness.client import RequestFailed
from ..installed import DEPLOYMENT, IMAGES, NAMESPACE, Installed, pod_namespace
from ..queue_stand_in import suspending
from ..recording import Recorder
from ..volumes import Volume, make_volume
from ..world import LTX2, World, training
from . import remains
from .campaign import Soak, summary
from .faults import admit
from .runs import BUDGETS, VARIANTS, Run, plan

ROOT = Path(__file__).resolve().parents[3]
SAMPLE_SECONDS = 20
# How much more than a fresh process an old one may have.
MORE = {"MiB": 25.0, "threads": 3, "files": 6}


def main(words: Sequence[str] | None = None) -> int:
    """Run a soak; 0 if every training ended as it must and nothing is left."""
    options = _options(words)
    log = options.log or ROOT / ".cache" / f"soak-{options.seed}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder, _world(Path(folder), options.name) as world:
            soak = _soak(world, plan(options.runs, options.seed), Path(folder), options.seed, log)
            with every(SAMPLE_SECONDS, lambda: soak.tell(operator=remains.footprint(world), quietly=True)):
                soak.go()
            _look_at_what_is_left(soak, Path(folder))
    except Missing as why:
        print(f"soak: {why}", file=sys.stderr)
        return 69
    print(summary(soak.records))
    wrong = [record for record in soak.records if record.get("problems")]
    print(f"\nseed {options.seed}, {(time.monotonic() - began) / 60:.0f} minutes, log {log}")
    return 1 if wrong else 0


@contextlib.contextmanager
def _world(folder: Path, name: str) -> Iterator[World]:
    """A cluster with the operator in it, and a namespace with a volume that can be full."""
    inputs = folder / "inputs"
    write_tiny(inputs / "models")
    (inputs / "models" / "broken.safetensors").write_bytes(bytes(range(256)) * 8)
    shutil.copytree(demo_clips(), inputs / "datasets" / "videos")
    (inputs / "datasets" / "broken").mkdir()
    (inputs / "datasets" / "broken" / "a.mp4").write_bytes(b"no clip" * 1000)
    made = cluster.up(name, bound=True)
    try:
        for target in ("operator", "job-cpu"):
            made.load_image(IMAGES[target], build_images.build(target))
        operator = Installed(made.kubectl, made.kubeconfig)
        operator.install()
        with (
            pod_namespace(made.kubectl) as namespace,
            suspending(made.kubectl, namespace),
            Recorder(made.kubeconfig, namespace).running() as recorder,
        ):
            volumes = {"data": make_volume(made, namespace, inputs, size="1Gi", kind="limited")}
            world = World(made, operator, namespace, volumes, recorder, IMAGES["job-cpu"])
            with every(1, lambda: _admit(world)):
                yield world
    finally:
        cluster.down(name)


def _admit(world: World) -> None:
    with contextlib.suppress(RequestFailed):  # the Job is gone meanwhile, or there is no server
        admit(world)


def _soak(world: World, runs: list[Run], folder: Path, seed: int, log: Path) -> Soak:
    """Everything that is needed before the first run."""
    for run in runs:
        if run.budget:
            _budget(world.volume, run.name)
    reference = folder / "reference"
    _undisturbed(reference, world.volume, sorted({run.variant for run in runs}))
    return Soak(world, runs, reference, random.Random(seed), log)


def _budget(volume: Volume, name: str) -> None:
    library = volume.folder / BUDGETS / f"{name}.so"
    library.parent.mkdir(exist_ok=True)
    after = f"{WORKSPACE}/runs/{name}/checkpoints/step-0000002"
    budgets.build(library, 0, budgets.BETWEEN, after, f"/tmp/peak-{name}")
    for path in (library.parent, library):
        os.chown(path, UID, UID)


def _undisturbed(folder: Path, volume: Volume, variants: Sequence[str]) -> None:
    """`ltx2 run` of each variant on this machine, in a workspace of its own."""
    volume.copy_inputs(folder)
    for name in variants:
        variant = VARIANTS[name]
        obj = training(name, "", **variant.spec(), gpu={"class": "cpu", "count": variant.processes})
        for key in ("images", "storage", "podTemplate"):
            del obj["spec"][key]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(obj))
        command = [LTX2, "run", f"{name}.yaml"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / f"{name}.yaml").unlink()
        print(f"undisturbed: {name}", flush=True)


def _look_at_what_is_left(soak: Soak, folder: Path) -> None:
    """Compare the operator with a fresh one, delete all trainings, and look for what should have gone."""
    world = soak.world
    world.operator.ready()
    old = remains.footprint(world)
    world.cluster.kubectl("rollout", "restart", f"deployment/{DEPLOYMENT}", "-n", NAMESPACE)
    world.operator.ready()
    time.sleep(2 * SAMPLE_SECONDS)  # it has looked at everything, and rests
    fresh = remains.footprint(world)
    grown = [f"{key}: {old[key]} against {fresh[key]} afresh" for key in MORE if old[key] > fresh[key] + MORE[key]]
    soak.tell(left="the operator's process", old=old, fresh=fresh, problems=grown)
    runs = {run.name: run.variant for run in soak.runs}
    found = []
    for claim, volume in world.volumes.items():
        found += [f"{claim}: {name}" for name in remains.files(volume.folder, folder / "reference", runs)]
    soak.tell(left="files", problems=found)
    world.kubectl("delete", "ltx2training", "--all", "--timeout=120s", "--wait=true")
    with contextlib.suppress(AssertionError):
        world.operator.wait_for(lambda: not remains.objects(world), "nothing", most=120)
    soak.tell(left="objects", problems=remains.objects(world))
    wanted = {"data", *(f"{run.name}-data" for run in soak.runs if run.upload)}
    soak.tell(left="claims", problems=sorted(remains.claims(world) ^ wanted))


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cluster.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="trainings (50)")
    parser.add_argument("--seed", type=int, default=1, help="decides the order of runs and faults (1)")
    parser.add_argument("--name", default="soak", help="the cluster's name (soak)")
    parser.add_argument("--log", type=Path, help="one JSON object a line; default .cache/soak-<seed>.jsonl")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
