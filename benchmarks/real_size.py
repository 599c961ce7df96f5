"""LTX-2.0 at its real size on one GPU: this trainer beside eager diffusers + peft, in one run.

    PYTHONPATH=operator:job:tests python benchmarks/real_size.py --workspace /tmp/real --results benchmarks/results

It writes a random checkpoint of the published architecture (43 GB) and a store of random latents, trains 20 steps with
`ltx2-job train` at learning rate 1e-3 and at one that changes nothing, and times single steps of both programs with
the device synchronised before and after each. Every part is a process of its own, so that none is measured on the
memory of another. The run fails if the host needs more than 8 GiB above the file cache to read the model, if a step is
slower than the baseline's, or if training changes nothing. `--tiny` is the same run on a CPU, for trying it out.

The baseline is the strongest eager one: everything in bf16 (LoRA, gradients and moments as well), one timestep per
sample, no clipping, gradient checkpointing of every block. A second one has our settings: fp32 LoRA under autocast, a
timestep per token, clipping.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from real_size_parts import PARTS, REAL, TINY, Scale, Shape, model_file, samples
from watch import Watch

GIB = 2**30
RATE, NO_RATE = 1e-3, 0.0
HOST_LIMIT = 8 * GIB
RATES = {"rate-1e-3": "1e-3", "rate-0": "0"}


def main() -> int:
    """Run every part in its own process, write the results, return 0 if the requirements are met."""
    parser = argparse.ArgumentParser(description="LTX-2.0 at its real size beside eager diffusers + peft.")
    parser.add_argument("--workspace", type=Path, required=True, help="folder with 45 GB free")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="where table and log go")
    parser.add_argument("--seconds", type=float, default=3600.0, help="time for everything; late parts are left out")
    parser.add_argument("--tiny", action="store_true", help="a small model on the CPU")
    parser.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    scale = TINY if args.tiny else REAL
    if args.part:
        PARTS[args.part](scale, args.workspace, time.monotonic() + args.seconds)
        return 0
    return Run(scale, args).run()


class Run:
    """The parent: starts the parts, watches their memory, keeps what they print."""

    def __init__(self, scale: Scale, args: argparse.Namespace):
        self.scale, self.args, self.until = scale, args, time.monotonic() + args.seconds
        args.results.mkdir(parents=True, exist_ok=True)
        self.name = "real_size_tiny" if args.tiny else "real_size"
        self.log = (args.results / f"{self.name}.log").open("w", buffering=1)
        self.found: dict[str, list[dict[str, Any]]] = {}

    def run(self) -> int:
        self.part("write")
        self.job("rate-1e-3", RATE)
        self.part("baseline")
        self.part("ours", reserve=0.35 if self.left() > 60 else 0.0)
        self.job("rate-0", NO_RATE)
        failures = check(self.scale, self.found)
        text = table(self.scale, self.found, failures)
        (self.args.results / f"{self.name}.md").write_text(text)
        self.say(text)
        return 1 if failures else 0

    def left(self) -> float:
        return self.until - time.monotonic()

    def say(self, line: str) -> None:
        print(line, flush=True)
        self.log.write(line + "\n")

    def part(self, name: str, reserve: float = 0.0) -> None:
        """A part of this script; `reserve` is the share of the time left that it must leave to later ones."""
        seconds = self.left() * (1 - reserve)
        command = [sys.executable, __file__, "--part", name, "--workspace", str(self.args.workspace)]
        self.child(name, [*command, "--seconds", str(seconds - 5), *(["--tiny"] if self.args.tiny else [])])

    def job(self, name: str, rate: float) -> None:
        """`ltx2-job train`, as a pod runs it."""
        from gpu.full_size import prepare_run

        scale, workspace = self.scale, self.args.workspace
        plan = {"memory": scale.plan, "device": scale.device}
        files = prepare_run(
            workspace, name, model_file(workspace), samples(scale), plan,
            learning_rate=rate, lr_warmup_steps=0, train_batch_size=scale.base[0], max_train_steps=scale.steps,
            lora_rank=scale.rank, ltx2_first_frame_conditioning_probability=0.5, mixed_precision="bf16",
        )  # fmt: skip
        order = ["train", "--files", str(files), "--workspace", str(workspace), "--run", name]
        run = workspace / "runs" / name
        began = time.time()
        measured = self.child(name, [sys.executable, "-m", "ltx2_job.cli", *order])
        numbers = run / "metrics.jsonl"
        lines = [json.loads(line) for line in numbers.read_text().splitlines()] if numbers.exists() else []
        for line in lines:
            self.log.write(f"{name} {json.dumps(line)}\n")
        steps = [line for line in lines if "loss" in line]
        held_out = [line["held_out_loss"] for line in lines if "held_out_loss" in line]
        if not steps or measured["code"]:
            return
        timed = [line["seconds_per_step"] for line in steps[scale.warm :]]
        self.keep(
            "job", name=name, **measured, median=statistics.median(timed), losses=[line["loss"] for line in steps],
            held_out=held_out, first=round(lines[0]["time"] - began, 1),
        )  # fmt: skip

    def keep(self, kind: str, **values: Any) -> None:
        self.found.setdefault(kind, []).append(values)

    def child(self, name: str, command: list[str]) -> dict[str, Any]:
        """Run a process to its end: exit code, seconds, largest memory of the host and the GPU while it ran."""
        self.say(f"== {name}: {self.left():.0f} s left")
        began = time.monotonic()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            watch = Watch(process.pid, self.scale.device)
            killer = threading.Timer(max(1.0, self.left()), process.kill)
            killer.start()
            assert process.stdout is not None
            for line in process.stdout:
                self.say(line.rstrip())
                if line.startswith("RESULT "):
                    kind, _, page = line.removeprefix("RESULT ").partition(" ")
                    self.keep(kind, **json.loads(page))
            killer.cancel()
            code = process.wait()
        measured = {"code": code, "seconds": round(time.monotonic() - began, 1), **watch.stop()}
        self.say(f"== {name}: {json.dumps(measured)}")
        self.keep("process", name=name, **measured)
        return measured


def check(scale: Scale, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What of the requirements is not met, or was not measured."""
    failures = [f"{each['name']} ended with code {each['code']}" for each in found["process"] if each["code"]]
    jobs = {job["name"]: job for job in found.get("job", [])}
    if set(jobs) != {"rate-1e-3", "rate-0"}:
        failures.append("not both trainings came to their end")
    else:
        trained, still = jobs["rate-1e-3"], jobs["rate-0"]
        if trained["losses"][-1] == still["losses"][-1] or trained["held_out"][-1] == still["held_out"][-1]:
            failures.append("the losses are the same with and without a learning rate")
    for job in jobs.values():
        if job["host"] > HOST_LIMIT:
            failures.append(f"{job['name']}: {job['host'] / GIB:.1f} GiB of host memory above the file cache")
    steps = found.get("steps", [])
    theirs = [each["median"] for each in steps if each["program"] != "ours"]
    mine = [each["median"] for each in steps if each["program"] == "ours" and each["what"].endswith("keep:0")]
    if not theirs or not mine:
        failures.append("not both programs were timed")
    elif scale.device == "cuda" and mine[0] > theirs[0]:  # a CPU runs the two in different precisions
        failures.append(f"a step takes {mine[0]:.3f} s, the baseline's {theirs[0]:.3f} s")
    return failures


def table(scale: Scale, found: dict[str, list[dict[str, Any]]], failures: list[str]) -> str:
    """The results as Markdown."""
    lines = ["# LTX-2.0 at its real size", "", "Command: `" + " ".join(["python", *sys.argv]) + "`", ""]
    tflops = None
    for gpu in found.get("gpu", []):
        tflops = gpu["tflops"]
        lines += [f"{gpu['name']}, torch {gpu['torch']}, bf16 product measured at {tflops:.0f} TFLOP/s.", ""]
    for written in found.get("written", []):
        lines += [f"Random transformer: {written['gigabytes']:.2f} GB written in {written['seconds']} s.", ""]
    flops = {(tuple(each["shape"]), each["keep"]): each["tflop"] for each in found.get("flops", [])}
    first = next((each["median"] for each in found.get("steps", []) if each["program"] != "ours"), None)
    lines += ["| program | settings | batch, frames, height, width | s/step (median) | least to most | of the baseline "
              "| of the floor | peak GiB in use | predicted | reserved |", "|---" * 10 + "|"]  # fmt: skip
    for each in found.get("steps", []):
        shape = tuple(each["shape"])
        ratio = f"{each['median'] / first:.2f}" if first and shape == scale.base else ""
        floor = predicted = ""
        if each["program"] == "ours":
            keep = int(each["what"].rpartition(":")[2])
            predicted = f"{peak(scale, shape, keep) / GIB:.1f}"
            if tflops and (shape, keep) in flops:
                work = flops[shape, keep]
                floor = f"{each['median'] * tflops / work:.1f} x ({work:.0f} TFLOP)"
        lines.append(
            f"| {each['program']} | {each['what']} | {shape} | **{each['median']:.3f}** | {each['least']:.3f} to "
            f"{each['most']:.3f} | {ratio} | {floor} | {each['peak'] / GIB:.1f} | {predicted} "
            f"| {each['reserved'] / GIB:.1f} |"
        )
    lines += ["", f"`ltx2-job train`, {scale.steps} steps at the base shape, {scale.plan}, LoRA rank {scale.rank}:", "",
              "| learning rate | s/step (median) | host above file cache | machine above file cache | GPU (nvidia-smi) "
              "| seconds in all; to the first loss | loss of the first and last step | held-out loss, start and end |",
              "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for job in found.get("job", []):
        lines.append(
            f"| {RATES[job['name']]} | {job['median']:.3f} | {job['host'] / GIB:.2f} GiB "
            f"| {job['system'] / GIB:.2f} GiB | {job['gpu'] / GIB:.1f} GiB | {job['seconds']}; {job['first']} "
            f"| {job['losses'][0]:.5f}, {job['losses'][-1]:.5f} | {job['held_out'][0]:.5f}, {job['held_out'][-1]:.5f} |"
        )
    loads = ", ".join(f"{each['program']} {each['seconds']} s" for each in found.get("load", []))
    lines += ["", f"Reading the model and attaching the LoRA: {loads}.", ""]
    lines += ["Not met: " + "; ".join(failures) + "." if failures else "All requirements are met.", ""]
    return "\n".join(lines)


def peak(scale: Scale, shape: Shape, keep: int) -> int:
    """What the planner predicts that torch has in use at the peak of a step, in bytes."""
    from ltx2_job import estimate

    batch, frames, height, width = shape
    model = estimate.known_model("2.0")
    terms = estimate.training_terms(
        model, estimate.shape(width, height, frames, batch), form=scale.form, keep=keep, rank=scale.rank
    )
    return estimate.allocated(terms)


if __name__ == "__main__":
    sys.exit(main())
