"""`ltx2 estimate`: what fits which GPU class, at which speed, with how much host memory and disk. Starts nothing."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Final

from ltx2_job import estimate as model
from ltx2_job import exitcodes
from ltx2_job.errors import ConfigError, Problem
from ltx2_job.estimate import GIB
from ltx2_operator import demands, gpus, sizing
from ltx2_operator.accept import size_text
from ltx2_operator.api import Plan
from ltx2_operator.cli.inputs import Order
from ltx2_operator.cli.reading import readable
from ltx2_operator.cli.words import table, total_steps
from ltx2_operator.demands import Case
from ltx2_operator.gpus import AUTO, CPU
from ltx2_operator.outlook import Outlook, outlook

HEADING: Final = (" ", "CLASS", "MEMORY", "PLAN", "PEAK", "S/STEP", "HOURS", "RAM", "DISK", "CACHE STAGE")
GROUPS: Final = (
    ("now", "fits, cheapest first; * is what `auto` takes where all are offered:"),
    ("later", "~ would fit with a plan that is not built yet: predicted, `ltx2 run` refuses it:"),
)


MARKS: Final = {"now": " ", "later": "~"}


def estimate(args: Namespace) -> int:
    """One row per GPU class, in groups; or all terms of one class."""
    order, notes = readable(args.file, args.workspace.resolve(), estimating=True)
    if args.gpu_class:
        lines = list(class_lines(order, _one_class(args.gpu_class)))
    else:
        lines = [*class_rows(order, [outlook(case(order, entry)) for entry in gpus.CLASSES]), *_hours(order)]
    for line in [*lines, *notes]:
        print(line)
    return exitcodes.OK


def _one_class(name: str) -> gpus.GpuClass:
    """The class of --class. Raises ConfigError."""
    if name == AUTO:
        raise ConfigError(Problem("--class", f"{AUTO} is no class by itself", "leave it out for one row per class"))
    return gpus.find(name, "--class")


def case(order: Order, entry: gpus.GpuClass) -> Case:
    """An order on a class."""
    return Case.of(order.training.spec, order.resolved, entry, order.model)


def class_rows(order: Order, answers: list[Outlook]) -> Iterator[str]:
    """The table: classes that fit, classes that would, and those that do not with the reason in their row."""
    answers = sorted(answers, key=lambda one: one.cls is CPU)  # it is never chosen by itself: last of its group
    marked = next((one.cls.name for one in answers if one.state == "now" and one.cls is not CPU), "")
    rows = [
        HEADING,
        *(_row(order, one, "*" if one.cls.name == marked else MARKS[one.state]) for one in answers if one.train),
    ]
    heading, *lines = table(rows)
    found = iter(lines)
    by_name = {one.cls.name: next(found) for one in answers if one.train}
    yield heading
    for state, title in GROUPS:
        names = [one.cls.name for one in answers if one.state == state]
        yield from (title, *(by_name[name] for name in names)) if names else ()
    none = [one for one in answers if one.state == "no"]
    if none:
        yield "does not fit:"
        yield from table([(" ", one.cls.name, one.reason) for one in none])


def _row(order: Order, one: Outlook, mark: str) -> tuple[str, ...]:
    train, cache = one.train, one.cache
    assert train is not None and cache is not None
    each, steps = float(train.predicted_seconds_per_step or 0), total_steps(order)
    memory = f"{one.cls.memory_bytes / GIB:.0f}G" if one.cls.memory_bytes else "-"
    return (
        mark, one.cls.name, memory, train.memory, f"{train.predicted_peak_bytes / GIB:.1f}G",
        f"{each:.3g}" if each else "-", _hours_text(each * steps / 3600) if each and steps else "-",
        f"{max(train.memory_bytes, cache.memory_bytes) / GIB:.0f}G", f"{train.volume_bytes / GIB:.0f}G",
        "on the GPU" if cache.device == "cuda" and cache.cache_memory == "device" else "on the CPU",
    )  # fmt: skip


def _hours_text(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.2f}"


def _hours(order: Order) -> Iterator[str]:
    if total_steps(order) is None:
        yield "hours: num_train_epochs needs the number of clips, which the cache stage finds"


# ----------------------------------------------------------------------------------------------------------- one class


def class_lines(order: Order, entry: gpus.GpuClass) -> Iterator[str]:
    """Everything that is predicted of one class, term by term."""
    asked = case(order, entry)
    answer = outlook(asked)
    yield f"{entry.name}: {_card(entry)}"
    if answer.train is None or answer.cache is None:
        yield f"does not fit: {answer.reason}"
        return
    batch = demands.batch_of(order.resolved)
    clip = f"{batch.frames} frames x {batch.area * model.shapes.SPATIAL_COMPRESSION**2 / 1e6:.2f} megapixels"
    later = "" if answer.state == "now" else "   NOT BUILT YET: predicted only, `ltx2 run` refuses it"
    yield f"\ntrain: {answer.train.memory}, batch {batch.batch} of {clip}{later}"
    yield from _stage(asked, answer.train, answer.train.memory)
    place = answer.cache.cache_memory
    where = "on the GPU" if entry is not CPU and place == "device" else "on the CPU"
    yield f"\ncache: VAEs and text encoder {where}, one at a time"
    auto = Case(order.training.spec.model_copy(update={"memory": AUTO}), asked.resolved, entry, asked.model)
    yield from _stage(auto, answer.cache, place)
    if place == "cpu":
        yield from _later_cache(asked)
    needs = sizing.resources(auto, "cache", place, answer.cache.terms)
    yield "\nvolume, both stages"
    yield from _terms(needs.volume, f"with a fifth to spare, rounded up: {size_text(answer.train.volume_bytes)}")


def _later_cache(asked: Case) -> Iterator[str]:
    """Rungs between GPU and CPU that are not built yet, with what they are predicted to need on the device."""
    for rung, terms in model.later_cache_terms(asked.model, demands.batch_of(asked.resolved)).items():
        fits = "would fit" if asked.fits(terms) else "would not fit"
        yield f"  not built yet: {rung}, {size_text(sum(terms.values()))} on the device, {fits}"


def _card(entry: gpus.GpuClass) -> str:
    if entry is CPU:
        return "no device"
    return (
        f"{entry.memory_bytes / GIB:.1f} GiB, {entry.usable_bytes / GIB:.1f} for a training; bf16"
        f"{' and fp8' if entry.fp8 else ', no fp8'}; {entry.bf16_tflops:g} TFLOP/s dense bf16; "
        f"{entry.link_gbps:g} GB/s from the host; image {entry.flavour}"
    )


def _stage(asked: Case, plan: Plan, name: str) -> Iterator[str]:
    """Device, seconds and pod of one stage."""
    needs = sizing.resources(asked, "cache" if plan.stage == "cache" else "train", name, plan.terms)
    if plan.terms:
        yield "  on the device" if asked.cls is not CPU else "  what a GPU would hold, in host memory"
        yield from _terms(plan.terms, size_text(plan.predicted_peak_bytes))
    if needs.seconds:
        yield f"  seconds a step, of which the longest counts: {max(needs.seconds.values()):.3g}"
        width = max(map(len, needs.seconds))
        yield from (f"    {part:{width}}  {each:.3g}" for part, each in needs.seconds.items())
    yield "  host memory"
    yield from _terms(needs.host.terms, f"rounded up: {size_text(plan.memory_bytes)}")
    yield (
        f"  CPU {plan.cpu_milli / 1000:g} cores, /dev/shm {size_text(plan.shm_bytes)}, "
        f"scratch disk {size_text(plan.ephemeral_bytes)}"
    )


def _terms(terms: Mapping[str, int], total: str) -> Iterator[str]:
    rows = [(name, size_text(size)) for name, size in terms.items()]
    width = max(len(name) for name, _ in rows)
    for name, size in rows:
        yield f"    {name:{width}}  {size:>9}"
    yield f"    {'sum':{width}}  {size_text(sum(terms.values())):>9}   {total}"
