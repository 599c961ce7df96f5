"""loss.png: the training loss, its running mean and the held-out loss over the steps."""

import io
import json
from pathlib import Path

from ltx2_job.workspace import write_atomic

WINDOW = 25  # steps of the running mean


def write_loss_plot(metrics: Path, picture: Path, title: str) -> None:
    """Draw metrics.jsonl as a PNG, complete or absent. A run without steps gives a picture without lines."""
    # Imported here: matplotlib costs seconds that only the end of a run should pay.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    trained = {line["step"]: line["loss"] for line in lines if "loss" in line}
    held_out = {line["step"]: line["held_out_loss"] for line in lines if "held_out_loss" in line}
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="optimizer step", ylabel="loss", title=title)
    axes.plot(list(trained), list(trained.values()), color="0.75", linewidth=0.8, label="training")
    axes.plot(
        list(trained), running_mean(list(trained.values())), color="tab:blue", label=f"training, mean of {WINDOW}"
    )
    axes.plot(list(held_out), list(held_out.values()), color="tab:red", marker="o", label="held-out")
    axes.grid(alpha=0.3)
    axes.legend()
    raw = io.BytesIO()
    FigureCanvasAgg(figure).print_png(raw)
    write_atomic(picture, raw.getvalue())


def running_mean(values: list[float]) -> list[float]:
    """Mean over the last WINDOW values up to each place (fewer at the start)."""
    return [sum(part) / len(part) for part in (values[max(0, i + 1 - WINDOW) : i + 1] for i in range(len(values)))]
