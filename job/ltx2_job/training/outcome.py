"""The end of a training: LoRA files, loss.png and result.json."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from ltx2_job.data.index import Index
from ltx2_job.export import Facts, write_lora
from ltx2_job.models.load import Checkpoint
from ltx2_job.stage import Stage
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.course import Course
from ltx2_job.training.plots import write_loss_plot
from ltx2_job.workspace import write_json


def finish(stage: Stage, base: Checkpoint, adapters: AdapterSet, course: Course, index: Index) -> None:
    """Write what a run leaves behind; result.json last, since it is the proof of success. Rank 0 only.

    Raises Superseded before each file if a newer attempt owns the run.
    """
    config, run = stage.config, stage.run
    stage.reporter.state("saving")
    facts = Facts(
        base_model=base.path.name,
        model_version=base.version,
        steps=course.step,
        config_hash=stage.digest,
        data_hash=data_hash(index),
        trigger_words=tuple(config.trigger_words),
    )
    official, diffusers = write_lora(run, adapters.views, adapters.rank, adapters.alpha, facts, stage.fence.check)
    stage.fence.check()
    write_loss_plot(run.metrics, run.loss_png, stage.run_name)
    first, last = min(course.held_out, default=None), max(course.held_out, default=None)
    result = {
        "uid": stage.uid,
        "configDigest": stage.digest,
        "steps": course.step,
        "finalLoss": course.final_loss,
        "heldOutLoss": {
            "start": None if first is None else course.held_out[first].total,
            "end": None if last is None else course.held_out[last].total,
        },
        "lora": _shown(official, stage.workspace.root),
        "loraDiffusers": _shown(diffusers, stage.workspace.root),
        "seconds": round(course.seconds, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    stage.fence.check()
    write_json(run.result, result)
    stage.reporter.result.update(result)
    stage.reporter.info(f"LoRA after {course.step} steps: {official} and {diffusers}")


def data_hash(index: Index) -> str:
    """sha256 over what was trained on: every sample's id and the keys of its latents and captions."""
    lines = sorted(
        "\0".join((sample.id, sample.video_key, sample.audio_key or "", *sample.text_keys)) for sample in index.samples
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _shown(path: Path, workspace: Path) -> str:
    """Relative to the workspace, which may be mounted elsewhere when somebody reads it."""
    return str(path.relative_to(workspace)) if path.is_relative_to(workspace) else str(path)
