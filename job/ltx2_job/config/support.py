"""The second pass: which keys ask for something that is not built yet."""

from collections.abc import Sequence

from pydantic import BaseModel

from ltx2_job.config.changes import Unsupported
from ltx2_job.config.datasets import DatasetConfig
from ltx2_job.config.keys import asks, facts
from ltx2_job.config.training import TrainingConfig


def unsupported(training: TrainingConfig, datasets: Sequence[tuple[str, DatasetConfig]]) -> tuple[Unsupported, ...]:
    """Every key, in the order of the models, whose value asks for a feature that comes later.

    datasets: each with the name of its place in the user's list, for example "datasets[0]".

    A key that only details another one (`part_of`) is not named: while that one is off it has no effect, and while it
    is on, that one is named.
    """
    found = _of(training, "")
    for field, dataset in datasets:
        found += (
            _of(dataset, f"{field}.") + _of(dataset.video, f"{field}.video.") + _of(dataset.audio, f"{field}.audio.")
        )
    return tuple(found)


def _of(model: BaseModel, prefix: str) -> list[Unsupported]:
    found = []
    for name, info in type(model).model_fields.items():
        known, value = facts(info), getattr(model, name)
        if known.part_of:
            continue
        if known.status == "later" and asks(info, value):
            found.append(Unsupported(prefix + name, value, known.why))
        elif known.values and value in known.values:
            found.append(Unsupported(prefix + name, value, known.values[value]))
    return found
