"""Nothing fits: one sentence that says what is needed, what is there, and what would fit."""

from collections.abc import Iterator
from typing import Final

from ltx2_job import estimate
from ltx2_job.estimate import GIB, PlanName, Shape, Terms
from ltx2_operator import demands, gpus, prospects
from ltx2_operator.demands import Case, Stage

SMALLER: Final = "take fewer frames, a lower resolution, a smaller batch or a larger GPU class"


def what_would_fit(case: Case, stage: Stage, name: str, terms: Terms) -> str:
    """The sentence, for the smallest plan of a stage and its terms.

    Named are changes that are predicted to fit: a smaller batch, fewer frames, no sample clips, the cheapest larger
    class, and a plan that is not built yet.
    """
    need, have = sum(terms.values()) / GIB, case.cls.usable_bytes / GIB
    sentence = f"{stage} with {name} needs {need:.1f} GiB, {case.cls.name} has {have:.1f} GiB"
    ideas = list(_smaller_work(case, PlanName.parse(name))) if stage == "train" else []
    larger = next((entry for entry in gpus.TRAINING if _runs(case.on(entry), stage)), None)
    if larger is not None:
        ideas.append(f"gpu.class: {larger.name}")
    later = prospects.best(case) if stage == "train" else None
    if later is not None:
        ideas.append(f"once it is built, memory: {later[0]} ({sum(later[1].values()) / GIB:.1f} GiB predicted)")
    if not ideas:
        return f"{sentence}; no known class fits: {SMALLER}"
    return f"{sentence}; what would fit: {', or '.join(ideas)}"


def _runs(case: Case, stage: Stage) -> bool:
    return any(case.fits(terms) for _, terms in demands.plans(case, stage))


def _smaller_work(case: Case, plan: PlanName) -> Iterator[str]:
    """Changes of the configuration that fit on the same class with the same plan."""
    trains = case.fits(demands.step_terms(case, plan, demands.batch_of(case.resolved)))
    ideas = [] if trains else list(_smaller_clips(case, plan))
    if case.fits(demands.sample_terms(case, plan)):
        yield from ideas
    else:
        silent = "validation_disable: true"
        yield from [silent] if trains else [f"{idea} with {silent}" for idea in ideas]


def _smaller_clips(case: Case, plan: PlanName) -> Iterator[str]:
    """The largest smaller batch, the most frames below those asked for (8k+1); where neither will do, both together."""
    asked = demands.batch_of(case.resolved)

    def fits(batch: int, frames: int) -> bool:
        sound = estimate.audio_latents(frames) if asked.audio_latents else 0
        return case.fits(demands.step_terms(case, plan, Shape(batch, asked.area, frames, sound)))

    def most(batch: int) -> int | None:
        return next((frames for frames in range(asked.frames - 8, 8, -8) if fits(batch, frames)), None)

    batch = next((batch for batch in range(asked.batch - 1, 0, -1) if fits(batch, asked.frames)), None)
    frames = most(asked.batch)
    if batch is not None:
        yield f"train_batch_size: {batch}"
    if frames is not None:
        yield f"video.num_frames: {frames}"
    if batch is None and frames is None and asked.batch > 1 and (alone := most(1)) is not None:
        yield f"train_batch_size: 1 and video.num_frames: {alone}"
