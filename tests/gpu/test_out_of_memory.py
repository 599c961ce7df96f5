"""A GPU that is too small ends `ltx2-job train` with the code that lets the operator take a smaller memory plan."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from gpu.full_size import fill_store, prepare_run, sample
from ltx2_job import exitcodes
from ltx2_job.models.tiny import tiny_architecture
from ltx2_job.store import Store

# Bytes. The weights, the products' workspace and one clip without gradients fit; a step of sixteen clips does not.
LIMIT = 512 << 20
MEMORY = "fp32/resident/keep:48"

# The limit must be set in the process that trains: this is its worker, started as the launcher starts it.
WORKER = """
import sys, torch
torch.cuda.set_per_process_memory_fraction(float(sys.argv[1]))
from ltx2_job.cli import main
sys.exit(main(sys.argv[2:]))
"""


def test_gpu_out_of_memory_is_code_80_and_names_the_plan(tmp_path: Path, tiny20: Path, gpu: torch.device) -> None:
    arch = tiny_architecture("2.0", 2)
    samples = [sample(f"long{n}", (121, 512, 768)) for n in range(16)]
    fill_store(Store(tmp_path / "cache"), samples, arch, text_tokens=16)
    files = prepare_run(
        tmp_path, "big", tiny20, samples, {"memory": MEMORY}, train_batch_size=16, max_train_steps=2, lora_rank=4
    )
    fraction = LIMIT / torch.cuda.get_device_properties(gpu).total_memory
    order = ["train", "--files", str(files), "--workspace", str(tmp_path), "--run", "big", "--worker"]
    command = [sys.executable, "-c", WORKER, str(fraction), *order]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == exitcodes.GPU_OUT_OF_MEMORY, ended.stderr
    assert f"under memory plan {MEMORY}" in ended.stderr
    assert "Traceback" not in ended.stderr
    word = json.loads((tmp_path / "runs" / "big" / "attempts" / "1.json").read_text())
    assert (word["exitCode"], word["reason"]) == (80, "GPUOutOfMemory")
    assert MEMORY in word["message"]
    lines = (tmp_path / "runs" / "big" / "metrics.jsonl").read_text().splitlines()
    assert any("loss" in line for line in lines), "it was the step that did not fit, not the loading"
