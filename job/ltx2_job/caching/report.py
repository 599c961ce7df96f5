"""runs/<name>/report.json: which clips a run uses, in which shapes, and which it leaves out and why. Torch-free."""

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from ltx2_job.caching.survey import Clip, Skipped
from ltx2_job.caching.work import Work, footage
from ltx2_job.data.index import Sample
from ltx2_job.data.plan import Planner
from ltx2_job.store import KINDS

if TYPE_CHECKING:
    from ltx2_job.config import TrainingConfig

SHOWN: Final = 10  # skipped clips that are named one by one on the screen; the report has all


def bucket_name(width: int, height: int, frames: int) -> str:
    """ "640x448@49": width x height @ frames."""
    return f"{width}x{height}@{frames}"


def build_report(work: Work, config: "TrainingConfig", encoded: dict[str, int]) -> dict[str, Any]:
    """The report as JSON values. `encoded` counts the items that this stage computed, by kind."""
    used, whole = footage(work.samples)
    samples = list(work.samples.values())
    return {
        "clips": {
            "found": len(samples) + len(work.skipped),
            "used": len(samples),
            "held_out": sum(sample.held_out for sample in samples),
            "sounding": sum(sample.sounding for sample in samples),
            "skipped": len(work.skipped),
        },
        "footage": {
            "seconds": round(float(whole), 3),
            "used_seconds": round(float(used), 3),
            "share_used": round(float(used / whole), 4) if whole else 0.0,
        },
        "buckets": _buckets(work, config),
        "cache": {kind: {"encoded": encoded.get(kind, 0), "reused": len(work.reused.get(kind, ()))} for kind in KINDS},
        "skipped": [
            {
                "dataset": skipped.dataset,
                "path": skipped.path,
                "reason": skipped.reason,
                "frames": skipped.frames,
                "fps": skipped.fps,
            }
            for skipped in work.skipped
        ],
    }


def _buckets(work: Work, config: "TrainingConfig") -> list[dict[str, Any]]:
    """Per shape: clips, seconds, and how often an epoch on one process uses it."""
    groups: dict[tuple[int, int, int, int, float], list[tuple[Clip, Sample]]] = defaultdict(list)
    for clip, sample in work.samples.items():
        groups[(*sample.bucket, sample.fps)].append((clip, sample))
    uses: dict[tuple[int, int, int, int, float], tuple[int, int]] = {}
    if any(sample.probability for sample in work.trained):
        planned = Planner(work.trained, config, 1).uses()
        uses = {(*bucket, fps): (wanted, filled) for bucket, fps, wanted, filled in planned}
    rows = []
    for group, members in sorted(groups.items()):
        width, height, frames, length, fps = group
        used, whole = footage(clip for clip, _ in members)
        wanted, filled = uses.get(group, (0, 0))
        rows.append(
            {
                "bucket": bucket_name(width, height, frames),
                "fps": round(fps, 3),
                "audio_latents": length,
                "clips": len(members),
                "held_out": sum(sample.held_out for _, sample in members),
                "sounding": sum(sample.sounding for _, sample in members),
                "share_of_footage_used": round(float(used / whole), 4),
                "uses_per_epoch": wanted,
                "uses_per_epoch_filled_to_whole_steps": filled,
            }
        )
    return rows


def skip_lines(skipped: list[Skipped], total: int) -> list[str]:
    """One line per skipped clip, and one for those that are not named."""
    summary = f"{len(skipped)} of {total} clips skipped, see report.json"
    lines = [f"{each.path}: {each.reason}; skipped ({summary})" for each in skipped[:SHOWN]]
    if len(skipped) > SHOWN:
        lines.append(f"{len(skipped) - SHOWN} more clips were skipped ({summary})")
    return lines


def uneven_rates(clips: "list[Clip]") -> list[str]:
    """A line per dataset and pair of rates where frames have to be dropped or doubled unevenly."""
    pairs: dict[tuple[str, float, float], list[Clip]] = defaultdict(list)
    for clip in clips:
        if not clip.timing.whole:
            pairs[(clip.found.owner, float(clip.probe.rate), float(clip.timing.rate))].append(clip)
    return [
        f"datasets[{owner}].video.frame_rate: {len(group)} clips of {own:g} fps, such as {group[0].found.named}, are "
        f"brought to {wanted:g} fps; that is no whole ratio, so frames are {'dropped' if own > wanted else 'doubled'}"
        for (owner, own, wanted), group in sorted(pairs.items())
    ]


def overused(work: Work, config: "TrainingConfig") -> list[str]:
    """A line per bucket that fills a step only by using its clips at least twice as often as the others."""
    return [
        f"bucket {row['bucket']} at {row['fps']:g} fps has {row['uses_per_epoch']} uses per epoch, but a step takes "
        f"{row['uses_per_epoch_filled_to_whole_steps']} samples of one shape, so its clips are used "
        f"{row['uses_per_epoch_filled_to_whole_steps'] / row['uses_per_epoch']:.1f} times as often as asked for"
        for row in _buckets(work, config)
        if row["uses_per_epoch"] and row["uses_per_epoch_filled_to_whole_steps"] >= 2 * row["uses_per_epoch"]
    ]
