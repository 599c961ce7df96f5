"""One process of a training over several GPUs: `python -m nccl_run ROOT MODEL RANK WORLD NAME`; MASTER_* are set."""

import sys
from pathlib import Path

from ltx2_job.reporter import Reporter
from ltx2_job.training.trainer import run_training
from training_runs import clip, make_stage

CLIPS = [clip("a"), clip("b", sounding=False), clip("c"), clip("d", sounding=False), clip("e", frames=17, audio=17)]
SETTINGS = {"device": "cuda", "memory": "fp32/resident/keep:48", "max_train_steps": 20, "eval_steps_interval": 10}


def main(root: str, model: str, rank: str, world: str, name: str) -> None:
    """Train four clips a step, divided among the processes."""
    stage = make_stage(
        Path(root),
        Path(model),
        CLIPS,
        name=name,
        rank=int(rank),
        world=int(world),
        gradient_accumulation_steps=4 // int(world),
        **SETTINGS,
    )
    if int(rank):
        stage.reporter = Reporter()
    run_training(stage)


if __name__ == "__main__":
    main(*sys.argv[1:])
