"""Which trainings a soak runs, and what each must become: an undisturbed run's LoRA, or its own mistake's verdict."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from ltx2_operator.pods import WORKSPACE

from ..harness.cluster import BOX_IMAGE
from ..world import CONFIG, pod_template, training

QUEUE = "gpus"
MEMORY = {"requests": {"memory": "256Mi"}, "limits": {"memory": "2Gi"}}  # of real jobs of the tiny model
SCRATCH = "128Mi"  # more than a job needs of /tmp, little enough to be filled
BUDGETS = "budgets"  # folder of the volume: libraries that refuse memory to torch (tests/end_to_end/budget.c)
MANY = {"max_train_steps": 1000, "checkpoint_step_interval": 50}  # long enough for a fault to meet it


@dataclass(frozen=True)
class Variant:
    """A training whose weights are known from `ltx2 run`. processes: of one machine there, of one node each here."""

    config: dict[str, Any]
    frames: int = 17
    processes: int = 1

    def spec(self) -> dict[str, Any]:
        """What is the same wherever it runs."""
        datasets = [
            {
                "id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "datasets/videos",
                "caption_strategy": "textfile", "video": {"num_frames": self.frames, "min_frames": self.frames},
            }
        ]  # fmt: skip
        return {"config": {**CONFIG, **MANY, **self.config}, "datasets": datasets}


VARIANTS = {
    "plain": Variant({"seed": 7}),
    "short": Variant({"seed": 8}, frames=9),
    "large": Variant({"seed": 9, "resolution": 96}),
    "two": Variant({"seed": 7}, processes=2),
    # What tests/end_to_end/test_out_of_memory.py trains: keep:48 is too much for its budget, keep:0 is not.
    "tight": Variant({"resolution": 256, "train_batch_size": 4, "max_train_steps": 6, "checkpoint_step_interval": 2}),
}


@dataclass(frozen=True)
class Run:
    """One training of a soak.

    variant: whose LoRA it must make. reason: of the condition that it must end with. says: a part of its message.
    upload: its claim is made by the operator, and filled by `ltx2 upload`. budget: torch gets 14 MB from its first
    checkpoint on.
    """

    name: str
    spec: dict[str, Any]
    variant: str = "plain"
    reason: str = "Completed"
    says: str = ""
    upload: bool = False
    budget: bool = False

    def manifest(self, image: str) -> dict[str, Any]:
        """The object for kubectl."""
        return training(self.name, image, **{"retries": 50, "podTemplate": template(), **self.spec})


def template(memory: str = "", **container: Any) -> dict[str, Any]:
    """A pod that trains the tiny model for real, with a /tmp that can be filled."""
    patch = pod_template({key: {"memory": memory} for key in MEMORY} if memory else MEMORY, **container)
    patch["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {"sizeLimit": SCRATCH}}]
    return patch


def _changed(variant: str, **config: Any) -> dict[str, Any]:
    spec = VARIANTS[variant].spec()
    return {**spec, "config": {**spec["config"], **config}}


def _sound(variant: str, **spec: Any) -> Callable[[str], Run]:
    return lambda name: Run(name, {**VARIANTS[variant].spec(), **spec}, variant)


def _wrong(reason: str, says: str, spec: dict[str, Any]) -> Callable[[str], Run]:
    return lambda name: Run(name, {**VARIANTS["plain"].spec(), **spec}, reason=reason, says=says)


def _tight(name: str) -> Run:
    env = [{"name": "LD_PRELOAD", "value": f"{WORKSPACE}/{BUDGETS}/{name}.so"}]
    return Run(name, {**VARIANTS["tight"].spec(), "podTemplate": template(env=env)}, "tight", budget=True)


def _pinned(name: str) -> Run:
    spec = {**_tight(name).spec, "memory": "fp32/resident/keep:48"}
    return Run(name, spec, reason="GPUOutOfMemory", says="no smaller memory plan is left", budget=True)


def _broken_clips() -> dict[str, Any]:
    (clips,) = VARIANTS["plain"].spec()["datasets"]
    return {"datasets": [{**clips, "instance_data_dir": "datasets/broken"}]}


SOUND: dict[str, Callable[[str], Run]] = {
    "plain": _sound("plain"),
    "two": _sound("two", nodes=2),
    "upload": lambda name: Run(
        name, {**VARIANTS["short"].spec(), "storage": {"size": "1Gi"}}, "short", upload=True
    ),
    "large": _sound("large"),
    "queued": _sound("large", queueName=QUEUE),
    "tight": _tight,
    "short": _sound("short"),
    "again": _sound("plain"),
}  # fmt: skip
MISTAKES: dict[str, Callable[[str], Run]] = {
    "steps": _wrong("InvalidConfig", "max_train_steps", _changed("plain", max_train_steps=-1)),
    "clips": _wrong("DataError", "no usable clip", _broken_clips()),
    "model": _wrong(
        "InvalidConfig", "is not a safetensors file",
        _changed("plain", pretrained_model_name_or_path="models/broken.safetensors"),
    ),
    "loss": _wrong("LossNotFinite", "not a number", _changed("plain", learning_rate=1e30)),
    "memory": _wrong("HostOutOfMemory", "the limit is 192Mi", {"podTemplate": template("192Mi")}),
    "image": _wrong(
        "StartDeadlineExceeded", "localhost/nowhere:1",
        {"startDeadlineSeconds": 15, "images": {"cache": "localhost/nowhere:1"}},
    ),
    "binary": _wrong("InvalidImage", "exit code 128", {"images": {"cache": BOX_IMAGE}}),
    "deadline": _wrong(
        "DeadlineExceeded", "spec.activeDeadlineSeconds",
        {**_changed("plain", max_train_steps=100_000), "activeDeadlineSeconds": 25},
    ),
    "pinned": _pinned,
}  # fmt: skip


def plan(count: int, seed: int) -> list[Run]:
    """`count` runs in a random order: one in five has a mistake."""
    sound, wrong = cycle(SOUND.items()), cycle(MISTAKES.items())
    made = []
    for number in range(1, count + 1):
        label, make = next(wrong if number % 5 == 0 else sound)
        made.append(make(f"{label}-{number}"))
    random.Random(seed).shuffle(made)
    return made
