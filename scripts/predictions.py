"""What the product predicts, written where people read it: the comments of configs/cards and tables of two pages.

scripts/generate.py calls this (`make generate`); a test holds the files against it. Every figure comes from the same
functions that plan a run.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ltx2_job import estimate
from ltx2_job.estimate import GIB, PlanName, Shape
from ltx2_operator import demands, gpus
from ltx2_operator.accept import size_text
from ltx2_operator.cli.estimating import case
from ltx2_operator.cli.inputs import Order
from ltx2_operator.cli.reading import readable
from ltx2_operator.cli.words import total_steps
from ltx2_operator.outlook import Outlook, outlook

ROOT = Path(__file__).resolve().parent.parent
CARDS = ROOT / "configs" / "cards"
PAGE = ROOT / "docs" / "performance.md"
PAGES = (PAGE, ROOT / "docs" / "quickstart.md")
BEGIN, END = "# --- predicted; written by `make generate` ---", "# ---"
BASE = estimate.shape(832, 480, 17, batch=2)
LONG = estimate.shape(768, 512, 121)


# --------------------------------------------------------------------------------------------------------------- cards


def look(path: Path) -> tuple[Order, Outlook]:
    """A manifest, and how it does on the GPU class that it names."""
    order, _ = readable(path, ROOT / "configs", estimating=True)
    return order, outlook(case(order, gpus.find(order.training.spec.gpu.class_)))


def comment(path: Path) -> list[str]:
    """The predicted lines of a manifest's head."""
    order, answer = look(path)
    train, cache = answer.train, answer.cache
    if train is None or cache is None:
        return [f"# does not fit: {answer.reason}"]
    each, steps = float(train.predicted_seconds_per_step or 0), total_steps(order) or 0
    place = "GPU" if cache.cache_memory == "device" else "CPU"
    return [
        f"# {train.memory}: peak {size_text(train.predicted_peak_bytes)} of {size_text(answer.cls.usable_bytes)}",
        f"# {each:.3g} s/step, {each * steps / 3600:.1f} h for {steps} steps",
        f"# host memory {size_text(train.memory_bytes)} for training, {size_text(cache.memory_bytes)} for the cache "
        f"stage (VAEs and text encoder on the {place})",
        f"# volume {size_text(train.volume_bytes)}: models, 1,000 clips with their cache, checkpoints",
    ]


def with_comment(text: str, lines: list[str]) -> str:
    """A manifest's text with its predicted lines written anew."""
    before, _, rest = text.partition(f"{BEGIN}\n")
    return f"{before}{BEGIN}\n" + "".join(f"{line}\n" for line in lines) + f"{END}\n" + rest.partition(f"{END}\n")[2]


# ---------------------------------------------------------------------------------------------------------------- page


def tables() -> dict[str, str]:
    """The generated tables by the name of their markers."""
    return {
        "measured": _markdown(("what", "measured", "ours", "ours is"), [*_ours(), *_cache(), *_experiments()]),
        "guide": _markdown(("what the guide says", "its figure", "ours", "ours is"), list(_guide())),
        "cards": _markdown(("file", "runs now", "plan", "peak", "s/step", "hours", "host", "volume"), list(_files())),
    }


def with_tables(page: str) -> str:
    """The page with its tables written anew."""
    for name, table in tables().items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        page = re.sub(f"{begin}.*?{end}", lambda _, text=f"{begin}\n{table}\n{end}": text, page, flags=re.DOTALL)
    return page


def _markdown(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heading, tuple("---" for _ in heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _terms(name: str, batch: Shape, optimizer: str = "adamw", rank: int = 16) -> dict[str, int]:
    plan = PlanName.parse(name)
    return estimate.training_terms(
        estimate.known_model("2.0"), batch, form=plan.form, keep=plan.keep, resident=plan.resident, rank=rank,
        optimizer=optimizer,
    )  # fmt: skip


def _seconds(name: str, batch: Shape, cls: str) -> float:
    plan, entry = PlanName.parse(name), gpus.find(cls)
    parts = estimate.step_parts(
        estimate.known_model("2.0"), batch, keep=plan.keep, form=plan.form, resident=plan.resident,
        tflops=entry.bf16_tflops, link_gbps=entry.link_gbps, fp8_units=entry.fp8,
    )  # fmt: skip
    return max(parts.values())


def _ours() -> Iterator[tuple[str, ...]]:
    """This trainer's own measurements beside what the planner says of them."""
    for row in estimate.constants()["calibration"]["rows"]:
        batch, frames, height, width = row["shape"]
        name = f"bf16/resident/keep:{row['keep']}"
        terms = _terms(name, estimate.shape(width, height, frames, batch))
        what = f"ours, H200: {name}, {batch} x {frames} x {height} x {width}, in use"
        kind = "fitted to it" if row["use"] == "fitted" else "predicted, checked"
        yield what, f"{row['allocated'] / GIB:.1f} GiB", f"{estimate.allocated(terms) / GIB:.1f} GiB", kind


def _cache() -> Iterator[tuple[str, ...]]:
    """What the VAE and the text encoder were measured to need, in benchmarks/results/cache_memory.log."""
    for row in map(json.loads, (ROOT / "benchmarks" / "results" / "cache_memory.log").read_text().splitlines()):
        if "sound" in row["what"]:
            continue
        size = f"{row['frames']} x {row['height']} x {row['width']}" if "pixels" in row else f"{row['tokens']} tokens"
        clip = estimate.shape(row.get("width", 32), row.get("height", 32), row.get("frames", 1))
        passes = estimate.cache_passes(estimate.known_model("2.0"), clip, form="bf16")
        ours = estimate.allocated(passes["text" if row["what"] == "caption" else "video"])
        what = f"ours, H100: {row['what']} {size}, in use"
        yield what, f"{row['allocated'] / GIB:.1f} GiB", f"{ours / GIB:.1f} GiB", "fitted to it"


def _experiments() -> Iterator[tuple[str, ...]]:
    """What others and throw-away experiments measured of plans that are not built here."""
    for what, name, batch, measured in (
        ("torchao int8 weight-only, eager, H100: base", "int8/resident/keep:0", BASE, 21.8),
        ("experiment, int8, all blocks streamed, H100: base", "int8/streamed:0/keep:0", BASE, 4.8),
        ("experiment, int8, all blocks streamed, H100: long", "int8/streamed:0/keep:0", LONG, 7.6),
        ("experiment, int8, 16 blocks resident, H100: base", "int8/streamed:16/keep:0", BASE, 10.5),
        ("experiment, int8, 16 blocks resident, H100: long", "int8/streamed:16/keep:0", LONG, 13.3),
    ):
        terms = _terms(name, batch)
        theirs = 8 * estimate.known_model("2.0").adapter(16)  # their LoRA and its moments were bf16, ours are fp32
        reserved = sum(terms.values()) - terms["context"]
        yield what, f"{measured} GiB", f"{(reserved - theirs) / GIB:.1f} GiB", f"predicted ({name}, not built yet)"


def _guide() -> Iterator[tuple[str, ...]]:
    """The guide's own figures (480p, 17 frames, batch 2, rank 16, adamw_bf16) beside ours."""
    shape = {"optimizer": "adamw_bf16"}
    for what, figure, name, cls in (
        ("everything streamed from RAM, RX 7900 XTX", "~13 GB, ~16 s/step", "int8/streamed:0/keep:0", "rx-7900-xtx"),
        ("int8, no offload, a 32 GB card", "29-30 GB", "int8/resident/keep:0", "rtx-5090"),
        ("bf16, no offload, A100 80 GB", "~48 GB, ~8 s/step", "bf16/resident/keep:0", "a100-80g"),
    ):
        total, each = sum(_terms(name, BASE, **shape).values()), _seconds(name, BASE, cls)
        built = "" if PlanName.parse(name).built else ", not built yet"
        yield what, figure, f"{total / 1e9:.1f} GB, {each:.2g} s/step", f"predicted ({name} on {cls}{built})"
    total = estimate.constants()["calibration"]["total"]["bytes"]
    yield "the same", "", f"{total / 1e9:.1f} GB, 1.8 s/step", "measured (bf16/resident/keep:0 on an H200, fp32 LoRA)"
    _, answer = look(CARDS / "h100-80g.yaml")
    assert answer.train is not None and answer.cache is not None
    loading = "limit of the pod"
    yield (
        "RAM while the transformer becomes int8",
        "34 GB",
        f"{answer.train.memory_bytes / 1e9:.0f} GB",
        f"predicted ({loading}, bf16)",
    )
    yield "RAM while training in bf16", "", "3.3 GB", "measured (H200, above the file cache)"
    yield (
        "RAM while the text encoder becomes int8",
        "46 GB",
        f"{answer.cache.memory_bytes / 1e9:.0f} GB",
        f"predicted ({loading}, bf16)",
    )


def _files() -> Iterator[tuple[str, ...]]:
    for path in sorted(CARDS.glob("*.yaml"), key=lambda one: list(gpus.BY_NAME).index(one.stem)):
        order, answer = look(path)
        train, cache = answer.train, answer.cache
        assert train is not None and cache is not None, path
        each, steps = float(train.predicted_seconds_per_step or 0), total_steps(order) or 0
        batch = demands.batch_of(order.resolved)
        yield (
            f"[{path.stem}](../configs/cards/{path.name})", "yes" if answer.state == "now" else "not yet",
            f"{train.memory}, {batch.batch} x {batch.frames} frames", f"{train.predicted_peak_bytes / GIB:.1f} GiB",
            f"{each:.3g}", f"{each * steps / 3600:.1f}", f"{max(train.memory_bytes, cache.memory_bytes) / GIB:.0f} GiB",
            f"{train.volume_bytes / GIB:.0f} GiB",
        )  # fmt: skip


def write() -> None:
    """Write all of them; what is up to date stays byte-equal."""
    for path in sorted(CARDS.glob("*.yaml")):
        path.write_text(with_comment(path.read_text(), comment(path)))
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
