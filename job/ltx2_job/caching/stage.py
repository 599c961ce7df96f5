"""The cache stage: everything that does not change during training is computed once, before it.

mirror datasets that lie elsewhere -> survey the clips -> plan the work -> (only if something is missing) video VAE,
audio VAE, text encoder -> index.json, report.json. A run with nothing to do ends before torch is imported.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ltx2_job.caching.manage import in_use, memory_path
from ltx2_job.caching.remember import Memory
from ltx2_job.caching.report import build_report, overused, skip_lines, uneven_rates
from ltx2_job.caching.survey import Skipped, Workers, clip_datasets, survey
from ltx2_job.caching.work import Stores, Work, index_of, plan_work
from ltx2_job.data.index import Index
from ltx2_job.errors import ConfigError, DataError, Problem
from ltx2_job.mirror.bring import bring
from ltx2_job.storage import require_space, writing
from ltx2_job.store import KINDS
from ltx2_job.workspace import write_json

if TYPE_CHECKING:
    from ltx2_job.models.load import Checkpoint
    from ltx2_job.stage import Stage


def run_cache(stage: "Stage", make_workers: Callable[[int | None], Workers] = Workers) -> Index:
    """Fill the store for a run and write its index.json and report.json.

    Raises NoInputError (no clip, or no checkpoint, is there yet), DataError (no clip can be used; the report says why),
    CheckpointError, ConfigError, Stopped between two items, Superseded, StorageError, GPUOutOfMemoryError.
    `make_workers` makes the media workers.
    """
    if stage.world != 1:
        raise ConfigError(
            Problem(
                "plan.processes", f"{stage.world} processes cache at once: not supported yet", "cache with one process"
            )
        )
    stage.reporter.state("loading")
    stores = Stores.of(stage)
    with writing(stage, stores.home.root, lambda: 0), in_use(stage.workspace):
        bring(clip_datasets(stage.datasets), stage.workspace, stage.run, stage.reporter, stage.stop.check)
        for store in stores.all:
            store.sweep()
        checkpoint = open_checkpoint(stage)
        with (
            Memory(memory_path(stage.workspace), stage.reporter.warn) as memory,
            make_workers(stage.plan.cores) as workers,
        ):
            found = survey(stage, memory, workers)
            work = plan_work(stage, checkpoint, memory, found, stores)
            for line in uneven_rates(list(work.samples)):
                stage.reporter.warn(line)
            encoded: dict[str, int] = {}
            stage.reporter.state("caching")
            _count_reused(stage, work)
            if work.trained and work.missing:
                for store in stores.all:
                    require_space(stage, store.root, work.certain_bytes(store))
                encoded = _encode(stage, checkpoint, work, memory, workers)
            index = index_of(work, stores)
            _finish(stage, work, encoded)
            stage.fence.check()
            index.save(stage.run.index)
    return index


def open_checkpoint(stage: "Stage") -> "Checkpoint":
    """The model of the configuration, downloaded if it is not here yet, checked from its headers.

    Raises NoInputError if a path is not there yet, CheckpointError if it is something else than LTX-2 with its Gemma,
    and what hub.obtain raises.
    """
    from ltx2_job.hub.obtain import obtain
    from ltx2_job.hub.snapshot import Snapshots
    from ltx2_job.models.load import Checkpoint

    snapshots = Snapshots(stage.workspace, stage.run)
    files = obtain(snapshots, stage.config, stage.reporter, stage.stop.check)
    stage.fence.check()
    snapshots.record(stage.config)  # later stages and attempts keep to these commits
    return Checkpoint.open(files.model, files.gemma)


def _encode(stage: "Stage", checkpoint: "Checkpoint", work: Work, memory: Memory, workers: Workers) -> dict[str, int]:
    from ltx2_job.caching.encode import Encoding  # imports torch

    encoding = Encoding(stage, checkpoint, work, memory, workers)
    encoding.run()
    return encoding.encoded


def _finish(stage: "Stage", work: Work, encoded: dict[str, int]) -> None:
    """Write the report, tell what a person should know, and fail if nothing is left to train on."""
    stage.fence.check()
    write_json(stage.run.report, build_report(work, stage.config, encoded))
    total = len(work.samples) + len(work.skipped)
    for line in skip_lines(work.skipped, total):
        stage.reporter.warn(line)
    if not work.trained:
        raise DataError(_nothing(work.skipped, total))
    for line in overused(work, stage.config):
        stage.reporter.warn(line)
    counts = ", ".join(f"{kind} {encoded.get(kind, 0)} encoded, {len(work.reused[kind])} reused" for kind in KINDS)
    stage.reporter.info(f"{len(work.samples)} clips, {len(work.skipped)} skipped; {counts}")
    stage.reporter.result.update(clips=len(work.samples), skipped=len(work.skipped), encoded=sum(encoded.values()))
    stage.reporter.state("done")


def _nothing(skipped: Iterable[Skipped], total: int) -> str:
    listed = [f"{each.path}: {each.reason}" for each in skipped]
    shown = "; ".join(listed[:5]) + (f"; and {len(listed) - 5} more" if len(listed) > 5 else "")
    return f"none of {total} clips can be trained on ({shown}); see report.json"


def _count_reused(stage: "Stage", work: Work) -> None:
    for number, _ in enumerate(work.skipped, 1):
        stage.reporter.items(number, len(work.skipped), "skipped", "clips")
    for kind, keys in work.reused.items():
        for number in range(1, len(keys) + 1):
            stage.reporter.items(number, work.total(kind), "reused", kind)
