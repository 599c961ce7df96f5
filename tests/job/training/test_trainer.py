"""The loop on a tiny model: it learns, it repeats, it resumes to the bit, and it ends as it should."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ltx2_job import checkpoint, exitcodes
from ltx2_job.data.plan import plan
from ltx2_job.errors import ConfigError, DataError, GPUOutOfMemoryError, Stopped, StorageError, Superseded
from ltx2_job.models.transformer import LTX2Transformer
from ltx2_job.stage import Stage
from ltx2_job.store import VIDEO, Store
from ltx2_job.training import step as step_module
from ltx2_job.training import trainer
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.batches import Reader, audio_tokens, grid_of
from ltx2_job.training.between import NotFiniteError, Validate
from ltx2_job.training.draw import draw
from ltx2_job.training.held_out import BORROWED, LEVELS, choose
from ltx2_job.training.objective import losses
from ltx2_job.training.trainer import run_training
from training_runs import Recorder, clip, make_stage

CLIPS = [clip("a"), clip("b", sounding=False), clip("c"), clip("d", frames=17, audio=17)]


def train(stage: Stage, validate: Validate | None = None) -> Recorder:
    run_training(stage, validate)
    assert isinstance(stage.reporter, Recorder)
    return stage.reporter


def final(stage: Stage) -> Path:
    return checkpoint.listed(stage.run.checkpoints)[-1]


def hashes(stage: Stage) -> list[str]:
    """sha256 of LoRA and optimizer state in the last checkpoint, and of both LoRA files."""
    files = [
        final(stage) / checkpoint.ADAPTER,
        final(stage) / checkpoint.OPTIMIZER,
        stage.run.lora,
        stage.run.lora_diffusers,
    ]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def weights(stage: Stage) -> torch.Tensor:
    tensors = load_file(final(stage) / checkpoint.ADAPTER)
    return torch.cat([tensors[key].flatten().float() for key in sorted(tensors)])


def distance(first: Stage, second: Stage, start: torch.Tensor) -> float:
    """How far apart two results are, in units of how far the training moved."""
    return float((weights(first) - weights(second)).norm() / (weights(first) - start).norm())


def initial(stage: Stage, transformer: Callable[[], LTX2Transformer]) -> torch.Tensor:
    """The weights before step 1, in the order of `weights`."""
    views = AdapterSet.create(transformer(), rank=stage.config.lora_rank, alpha=1.0, seed=stage.config.seed).views
    return torch.cat([views[key].flatten() for key in sorted(views)])


def test_training_lowers_the_held_out_loss_and_leaves_everything_behind(tmp_path: Path, tiny20: Path) -> None:
    settings = {"max_train_steps": 30, "checkpoint_step_interval": 15, "eval_steps_interval": 10, "learning_rate": 5e-3}
    stage = make_stage(tmp_path, tiny20, CLIPS, **settings, lora_alpha=8.0, trigger_words=["sks"])
    seen = train(stage)
    assert [step for step, _ in seen.measured] == [0, 10, 20, 30]
    assert seen.measured[-1][1] < 0.93 * seen.measured[0][1]
    assert seen.saved == [15, 30] and [step for step, _ in seen.steps] == list(range(1, 31))
    assert any("clipping by norm at 1" in message for message in seen.messages)

    result = json.loads(stage.run.result.read_text())
    assert {
        "uid",
        "configDigest",
        "steps",
        "finalLoss",
        "heldOutLoss",
        "lora",
        "loraDiffusers",
        "seconds",
        "finished",
    } == set(result)
    assert result["steps"] == 30 and result["heldOutLoss"] == {
        "start": seen.measured[0][1],
        "end": seen.measured[-1][1],
    }
    assert result["finalLoss"] == pytest.approx(sum(values["loss"] for _, values in seen.steps) / 30)
    assert (tmp_path / result["lora"]).is_file() and (tmp_path / result["loraDiffusers"]).is_file()
    assert seen.result == result
    assert stage.run.loss_png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_learning_rate_of_zero_changes_nothing(
    tmp_path: Path, tiny20: Path, transformer: Callable[[], LTX2Transformer]
) -> None:
    stage = make_stage(tmp_path, tiny20, CLIPS, max_train_steps=4, eval_steps_interval=2, learning_rate=0)
    seen = train(stage)
    assert torch.equal(weights(stage), initial(stage, transformer))
    assert len({loss for _, loss in seen.measured}) == 1


def test_a_silent_step_reports_no_audio_loss(tmp_path: Path, tiny20: Path) -> None:
    """0 would look like a perfect one."""
    stage = make_stage(tmp_path, tiny20, CLIPS[:2], max_train_steps=2)
    seen = train(stage)
    taken = [plan(CLIPS[:2], stage.config, index, 1) for index in range(2)]
    assert (
        [("loss_audio" in values) for _, values in seen.steps] == [bool(one.sounding) for one in taken] != [True, True]
    )


def test_the_loop_is_plain_adamw_on_the_plan(
    tmp_path: Path, tiny20: Path, transformer: Callable[[], LTX2Transformer]
) -> None:
    """20 steps against a loop without flat buffers: own parameters, torch's clipping, torch's unfused AdamW."""
    settings = {"max_train_steps": 20, "train_batch_size": 2, "gradient_accumulation_steps": 2, "max_grad_norm": 0.2}
    stage = make_stage(
        tmp_path, tiny20, CLIPS, **settings, audio_loss_weight=0.5, lr_scheduler="linear", lr_warmup_steps=3
    )
    seen = train(stage)
    config, reader = stage.config, Reader(Store(tmp_path / "cache"))
    model = transformer()
    views = AdapterSet.create(model, rank=4, alpha=4.0, seed=config.seed).views
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for parameter in own.values():
        parameter.grad = None
    adamw = torch.optim.AdamW(own.values(), lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, foreach=False)
    norms = []
    for index in range(20):
        taken = plan(CLIPS, config, index, 1)
        for micro in taken.ranks[0]:
            one = micro.picks[0].sample
            chance = draw(config.seed, index, micro.picks, grid_of(one), audio_tokens(one), first_frame_probability=0.1)
            losses(model, reader.batch(micro.picks, taken.samples, taken.sounding), chance, 0.5).total.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(own.values(), 0.2)))
        adamw.param_groups[0]["lr"] = 2e-3 * (index / 3 if index < 3 else (20 - index) / 17)
        adamw.step()
        adamw.zero_grad()
    theirs = torch.cat([views[key].flatten() for key in sorted(views)])
    moved = (weights(stage) - initial(stage, transformer)).norm()
    assert (weights(stage) - theirs).norm() / moved < 1e-4
    assert [values["grad_norm"] for _, values in seen.steps] == pytest.approx(norms, rel=1e-3)
    assert [values["learning_rate"] for _, values in seen.steps][:5] == pytest.approx(
        [0, 2e-3 / 3, 4e-3 / 3, 2e-3, 2e-3 * 16 / 17]
    )


KINDS = {
    "adamw": {},
    "adamw_bf16": {"optimizer": "adamw_bf16"},
    "dropout, recomputed": {"lora_dropout": 0.3, "memory": "fp32/resident/keep:0"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_ends_with_the_same_bits(tmp_path: Path, tiny20: Path, kind: str) -> None:
    """Stopped after step 3 of 7 and resumed, against unbroken."""
    settings = {"max_train_steps": 7, "train_batch_size": 2, "lr_scheduler": "cosine", **KINDS[kind]}
    whole = make_stage(tmp_path, tiny20, CLIPS, name="whole", **settings)
    train(whole)
    broken = make_stage(tmp_path, tiny20, CLIPS, name="broken", **settings)
    stop_after(broken, 3)
    with pytest.raises(Stopped, match="step 3 of 7"):
        run_training(broken)
    assert [step for step, _ in broken.reporter.steps] == [1, 2, 3], "the last step before leaving is reported too"  # type: ignore[attr-defined]
    again = make_stage(tmp_path, tiny20, CLIPS, name="broken", **settings)
    seen = train(again)
    assert [step for step, _ in seen.steps] == [4, 5, 6, 7]
    assert hashes(again) == hashes(whole)
    assert (
        json.loads(again.run.result.read_text())["heldOutLoss"]
        == json.loads(whole.run.result.read_text())["heldOutLoss"]
    )


def test_mutation_forgotten_moments_are_caught(tmp_path: Path, tiny20: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of bits sees that a resumed run lost its optimizer state."""
    original = trainer.resume

    def forgetful(loaded: Any, origin: str, adapters: AdapterSet, optimizer: Any, config: Any) -> Any:
        made = original(loaded, origin, adapters, optimizer, config)
        for flat in optimizer.moments().values():
            flat.zero_()
        return made

    whole = make_stage(tmp_path, tiny20, CLIPS, name="whole", max_train_steps=4)
    train(whole)
    broken = make_stage(tmp_path, tiny20, CLIPS, name="broken", max_train_steps=4)
    stop_after(broken, 2)
    with pytest.raises(Stopped):
        run_training(broken)
    monkeypatch.setattr(trainer, "resume", forgetful)
    again = make_stage(tmp_path, tiny20, CLIPS, name="broken", max_train_steps=4)
    train(again)
    assert hashes(again)[0] != hashes(whole)[0]


def stop_after(stage: Stage, step: int) -> None:
    """Ask the stage to stop while the step after this one is computed, so that it is the last one done."""
    original = stage.reporter.step

    def report(number: int, *rest: Any) -> None:
        original(number, *rest)
        if number == step - 1:
            stage.stop.request()

    stage.reporter.step = report  # type: ignore[method-assign]


@pytest.mark.parametrize("other", [{"train_batch_size": 2}, {"gradient_accumulation_steps": 2}])
def test_batch_and_accumulation_are_the_same_training(
    tmp_path: Path, tiny20: Path, transformer: Callable[[], LTX2Transformer], other: dict[str, int]
) -> None:
    """Four clips a step, sounding and silent mixed, as 4 x 1 and 2 x 2 and 1 x 4."""
    first = make_stage(tmp_path, tiny20, CLIPS, name="first", max_train_steps=5, train_batch_size=4)
    count = (
        {"train_batch_size": 2, "gradient_accumulation_steps": 2}
        if "train_batch_size" in other
        else {"gradient_accumulation_steps": 4}
    )
    second = make_stage(tmp_path, tiny20, CLIPS, name="second", max_train_steps=5, **count)
    train(first), train(second)
    assert distance(first, second, initial(first, transformer)) < 1e-4


def test_the_memory_plan_changes_nothing(tmp_path: Path, tiny20: Path) -> None:
    stages = [
        make_stage(tmp_path, tiny20, CLIPS, name=f"keep{keep}", max_train_steps=4, memory=f"fp32/resident/keep:{keep}")
        for keep in (48, 1, 0)
    ]
    for stage in stages:
        train(stage)
    assert len({hashes(stage)[0] for stage in stages}) == 1


def test_told_to_stop_while_measuring_or_validating_it_leaves_with_a_checkpoint(tmp_path: Path, tiny20: Path) -> None:
    """Catches: a stop inside validation that loses the steps since the last checkpoint."""
    stage = make_stage(tmp_path, tiny20, CLIPS, max_train_steps=8, validation_disable=False, validation_step_interval=4)

    def validate(model: LTX2Transformer, step: int) -> list[Path]:
        if step == 4:
            stage.stop.request()
            stage.stop.check()
        return []

    with pytest.raises(Stopped) as ended:
        run_training(stage, validate)
    assert ended.value.exit_code == exitcodes.STOPPED and final(stage).name == "step-0000004"

    last = {"name": "last", "max_train_steps": 2, "validation_disable": False, "disable_benchmark": True}
    made: list[int] = []
    for told in (True, False):
        stage = make_stage(tmp_path, tiny20, CLIPS, **last)

        def show(model: LTX2Transformer, step: int, stage: Stage = stage, told: bool = told) -> list[Path]:
            if told:
                stage.stop.request()
                stage.stop.check()
            made.append(step)
            return []

        if told:
            with pytest.raises(Stopped, match="all 2 steps are done"):
                run_training(stage, show)
            assert not stage.run.result.exists()
        else:
            run_training(stage, show)
            assert made == [2] and stage.run.result.exists()

    stage = make_stage(tmp_path, tiny20, CLIPS, name="measuring", max_train_steps=2)
    stop_after(stage, 3)  # while the last step is measured
    with pytest.raises(Stopped, match="all 2 steps are done"):
        run_training(stage)
    stage = make_stage(tmp_path, tiny20, CLIPS, name="measuring", max_train_steps=2)
    assert [step for step, _ in train(stage).measured] == [2]

    stage = make_stage(tmp_path, tiny20, CLIPS, name="other", max_train_steps=8)
    stage.stop.request()
    with pytest.raises(Stopped):
        run_training(stage)
    assert stage.reporter.measured == [] and checkpoint.listed(stage.run.checkpoints) == []  # type: ignore[attr-defined]


def test_a_run_without_audio_trains_the_video_alone(tmp_path: Path, tiny20: Path) -> None:
    """No audio latents in the index: no audio loss, and the audio half's LoRA stays where it began."""
    quiet = [clip(name, audio=0) for name in "ab"]
    stage = make_stage(tmp_path, tiny20, quiet, max_train_steps=3)
    seen = train(stage)
    assert all("loss_audio" not in values for _, values in seen.steps)
    tensors = load_file(final(stage) / checkpoint.ADAPTER)
    moved = {key.split(".")[3] for key, tensor in tensors.items() if ".lora_B." in key and tensor.any()}
    assert moved == {"attn1", "attn2"}


def test_the_second_generation_trains_as_well(tmp_path: Path, tiny23: Path) -> None:
    """2.3 modulates the text by the noise level and has gates; its text has another width for each modality."""
    stage = make_stage(
        tmp_path, tiny23, CLIPS, max_train_steps=20, learning_rate=5e-3, train_batch_size=2, widths=(64, 32)
    )
    seen = train(stage)
    assert seen.measured[-1][1] < 0.98 * seen.measured[0][1]


def test_videos_are_made_at_the_start_at_their_interval_and_at_the_end(tmp_path: Path, tiny20: Path) -> None:
    """And once more after resuming where a kill took them; with dropout off, gradients off."""
    settings = {
        "max_train_steps": 5,
        "validation_disable": False,
        "validation_step_interval": 2,
        "checkpoint_step_interval": 2,
    }
    made: list[tuple[int, bool, bool]] = []

    def validate(model: LTX2Transformer, step: int) -> list[Path]:
        made.append((step, model.training, torch.is_grad_enabled()))
        return []

    stage = make_stage(tmp_path, tiny20, CLIPS, **settings)
    train(stage, validate)
    assert made == [(step, False, False) for step in (0, 2, 4, 5)]
    made.clear()
    train(make_stage(tmp_path, tiny20, CLIPS, name="quiet", disable_benchmark=True, **settings), validate)
    assert [step for step, *_ in made] == [2, 4, 5]
    made.clear()
    train(make_stage(tmp_path, tiny20, CLIPS, name="off", **{**settings, "validation_disable": True}), validate)
    assert made == []

    for path in checkpoint.listed(stage.run.checkpoints)[1:]:
        shutil.rmtree(path)  # as if killed in the validation of step 2
    train(make_stage(tmp_path, tiny20, CLIPS, **settings), validate)
    assert [step for step, *_ in made] == [2, 4, 5]
    made.clear()
    (stage.run.validation / "step-0000005").mkdir(parents=True)
    train(make_stage(tmp_path, tiny20, CLIPS, **settings), validate)
    assert made == []


def test_a_finished_run_is_done_again_at_once(tmp_path: Path, tiny20: Path) -> None:
    first = make_stage(tmp_path, tiny20, CLIPS, max_train_steps=2)
    train(first)
    before = hashes(first)
    again = make_stage(tmp_path, tiny20, CLIPS, max_train_steps=2)
    assert train(again).steps == [] and hashes(again) == before


def test_limits_are_respected_and_a_broken_checkpoint_is_skipped_with_a_warning(tmp_path: Path, tiny20: Path) -> None:
    settings = {"max_train_steps": 6, "checkpoint_step_interval": 1, "checkpoints_total_limit": 2}
    whole = make_stage(tmp_path, tiny20, CLIPS, **settings)
    train(whole)
    expected = hashes(whole)
    assert [path.name for path in checkpoint.listed(whole.run.checkpoints)] == ["step-0000005", "step-0000006"]
    damaged = final(whole) / checkpoint.ADAPTER
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"abcd")
    again = make_stage(tmp_path, tiny20, CLIPS, **settings)
    seen = train(again)
    assert [step for step, _ in seen.steps] == [6] and hashes(again) == expected
    assert any("step-0000006" in message and "skipped" in message for message in seen.messages)


def test_the_checkpoint_gone_on_from_outlives_a_damaged_newer_one(tmp_path: Path, tiny20: Path) -> None:
    """Under a limit of 1, told to stop before the damaged one is written anew. Catches a run without any intact one."""
    settings = {"max_train_steps": 5, "checkpoint_step_interval": 1, "checkpoints_total_limit": 0}
    stage = make_stage(tmp_path, tiny20, CLIPS, **settings)
    train(stage)
    folder = stage.run.checkpoints
    for step in (3, 4, 5):
        damaged = folder / checkpoint.name_of(step) / checkpoint.ADAPTER
        damaged.write_bytes(damaged.read_bytes()[:-4] + b"abcd")
    again = make_stage(tmp_path, tiny20, CLIPS, **{**settings, "checkpoints_total_limit": 1})
    stop_after(again, 4)  # which is not begun: step 3 is the last one
    with pytest.raises(Stopped):
        run_training(again)
    newest = checkpoint.newest_complete(folder)
    assert newest is not None and checkpoint.step_of(newest) == 3


def test_a_surplus_checkpoint_that_a_kill_left_is_removed(tmp_path: Path, tiny20: Path) -> None:
    """Killed between a checkpoint and the removal of the oldest. Catches a limit that stays exceeded at the end."""
    settings = {"max_train_steps": 3, "checkpoint_step_interval": 1, "checkpoints_total_limit": 2}
    stage = make_stage(tmp_path, tiny20, CLIPS, **settings)
    train(stage)
    names = [path.name for path in checkpoint.listed(stage.run.checkpoints)]
    state = json.loads((final(stage) / checkpoint.STATE).read_text())
    loaded = checkpoint.load(final(stage))
    checkpoint.save(stage.run.checkpoints, 1, loaded.adapter, loaded.optimizer, {**state, "step": 1})
    train(make_stage(tmp_path, tiny20, CLIPS, **settings))
    assert [path.name for path in checkpoint.listed(stage.run.checkpoints)] == names


def test_a_checkpoint_that_finds_no_room_is_named_with_numbers(
    tmp_path: Path, tiny20: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library that writes tensors hides the system's error in a text. Catches an end without file and numbers."""

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    stage = make_stage(tmp_path, tiny20, CLIPS, max_train_steps=1)
    with pytest.raises(
        StorageError, match=r"checkpoints/\.writing-.*/adapter\.safetensors: no space left \(needs about "
    ):
        train(stage)
    assert checkpoint.listed(stage.run.checkpoints) == []


def test_a_stop_is_said_when_its_checkpoint_is_complete(tmp_path: Path, tiny20: Path) -> None:
    """Catches a word that comes before the checkpoint, or only when the process has taken itself apart."""
    stage = make_stage(tmp_path, tiny20, CLIPS)
    stop_after(stage, 2)
    said: list[tuple[str, int]] = []
    stage.reporter.leaving = lambda message: said.append((message, checkpoint.step_of(final(stage))))  # type: ignore[method-assign]
    with pytest.raises(Stopped) as caught:
        run_training(stage)
    assert len(said) == 1 and said[0][0] == str(caught.value) and f"step {said[0][1]} of 6" in said[0][0]


def test_a_named_checkpoint_starts_a_course_of_its_own(tmp_path: Path, tiny20: Path) -> None:
    """Another run goes on from step 2; its second attempt goes on from its own newest one, not from step 2 again."""
    first = make_stage(tmp_path, tiny20, CLIPS, name="first", max_train_steps=3, checkpoint_step_interval=2)
    train(first)
    settings = {"max_train_steps": 6, "resume_from_checkpoint": "runs/first/checkpoints/step-0000002"}
    longer = make_stage(tmp_path, tiny20, CLIPS, name="longer", **settings)
    stop_after(longer, 4)
    with pytest.raises(Stopped):
        run_training(longer)
    again = make_stage(tmp_path, tiny20, CLIPS, name="longer", **settings)
    assert [step for step, _ in train(again).steps] == [5, 6]
    whole = make_stage(tmp_path, tiny20, CLIPS, name="whole", max_train_steps=6)
    train(whole)
    assert hashes(again)[:2] == hashes(whole)[:2]

    back = make_stage(tmp_path, tiny20, CLIPS, name="first", max_train_steps=3, resume_from_checkpoint="step-0000002")
    assert [step for step, _ in train(back).steps] == [3]


def test_another_run_is_trained_on_from_where_it_stood_when_this_one_began(tmp_path: Path, tiny20: Path) -> None:
    """Catches a second attempt that jumps to what the other run has saved since, or begins anew from it."""
    train(make_stage(tmp_path, tiny20, CLIPS, name="first", max_train_steps=2))
    settings = {"max_train_steps": 6, "resume_from_checkpoint": "first"}
    longer = make_stage(tmp_path, tiny20, CLIPS, name="longer", **settings)
    stop_after(longer, 4)
    with pytest.raises(Stopped):
        run_training(longer)
    train(make_stage(tmp_path, tiny20, CLIPS, name="first", max_train_steps=6))
    again = make_stage(tmp_path, tiny20, CLIPS, name="longer", **settings)
    assert [step for step, _ in train(again).steps] == [5, 6]
    whole = make_stage(tmp_path, tiny20, CLIPS, name="whole", max_train_steps=6)
    train(whole)
    assert hashes(again)[:2] == hashes(whole)[:2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "adamw_bf16"}, "optimizer: is 'adamw_bf16', but checkpoint step-0000002 was made with 'adamw'"),
        ({"lora_rank": 8}, "lora_rank: is 8"),
        ({"lora_alpha": 1.0}, "lora_alpha: is 1.0"),
        ({"resume_from_checkpoint": "step-9"}, "'step-9' is no checkpoint.*there: step-0000002"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_by_name(
    tmp_path: Path, tiny20: Path, change: dict[str, Any], words: str
) -> None:
    train(make_stage(tmp_path, tiny20, CLIPS, max_train_steps=2))
    with pytest.raises(ConfigError, match=words):
        run_training(
            make_stage(
                tmp_path, tiny20, CLIPS, **{"max_train_steps": 4, "resume_from_checkpoint": "step-0000002", **change}
            )
        )


@pytest.mark.parametrize(
    ("length", "key"), [({"max_train_steps": 1}, "max_train_steps"), ({"num_train_epochs": 1}, "num_train_epochs")]
)
def test_a_checkpoint_beyond_the_last_step_is_refused(
    tmp_path: Path, tiny20: Path, length: dict[str, int], key: str
) -> None:
    """Catches: an end as if told to stop (85), which is tried again for ever."""
    train(make_stage(tmp_path, tiny20, CLIPS[:1], max_train_steps=2))
    again = {"max_train_steps": 0, "resume_from_checkpoint": "step-0000002", **length}
    with pytest.raises(ConfigError, match=rf"{key}: makes 1 steps, but checkpoint step-0000002 has done more; raise"):
        run_training(make_stage(tmp_path, tiny20, CLIPS[:1], **again))


def test_a_lora_file_can_be_the_start(tmp_path: Path, tiny20: Path) -> None:
    """alpha differs: the file's scale is kept as a function, so the first held-out loss is the other run's last."""
    first = make_stage(tmp_path, tiny20, CLIPS, name="first", max_train_steps=5, lora_alpha=8.0)
    before = train(first).measured[-1][1]
    for name in ("lora.safetensors", "lora.diffusers.safetensors"):
        second = make_stage(
            tmp_path, tiny20, CLIPS, name=name, max_train_steps=1, lora_alpha=2.0, init_lora=f"runs/first/{name}"
        )
        assert train(second).measured[0][1] == pytest.approx(before, rel=1e-5)


def test_a_gradient_that_is_not_finite_ends_the_run_before_a_checkpoint(
    tmp_path: Path, tiny20: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: weights that are lost already, saved as the newest checkpoint."""
    broken = replace(clip("e"), id="clips/e", video_key="broken")
    settings = {"max_train_steps": 8, "checkpoint_step_interval": 1, "train_batch_size": 1}
    stage = make_stage(tmp_path, tiny20, [*CLIPS[:3], broken], **settings)
    path = Store(tmp_path / "cache").path(VIDEO, "broken")
    path.unlink()
    Store(tmp_path / "cache").put(
        VIDEO, "broken", {"latents": torch.full((128, 2, 2, 2), float("inf"), dtype=torch.bfloat16)}, {}
    )
    bad = next(
        i for i in range(8) if plan([*CLIPS[:3], broken], stage.config, i, 1).ranks[0][0].picks[0].sample is broken
    )
    with pytest.raises(
        NotFiniteError, match=f"step {bad + 1}: .*nan.*from the last checkpoint \\(step {bad}\\)"
    ) as caught:
        run_training(stage)
    assert caught.value.exit_code == exitcodes.LOSS_NOT_FINITE  # another attempt would end the same way
    assert [checkpoint.step_of(p) for p in checkpoint.listed(stage.run.checkpoints)] == list(range(1, bad + 1))[-5:]

    stage = make_stage(tmp_path, tiny20, [broken], name="other")
    done = step_module.Step.__call__

    def told(*work: Any) -> torch.Tensor:
        stage.stop.request()
        return done(*work)

    monkeypatch.setattr(step_module.Step, "__call__", told)
    with pytest.raises(NotFiniteError):
        run_training(stage)
    assert checkpoint.listed(stage.run.checkpoints) == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nlong story"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`\nlong story"),
    ],
)
def test_out_of_memory_names_the_plan(
    tmp_path: Path, tiny20: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def exhausted(*_: object) -> None:
        raise error

    monkeypatch.setattr(step_module, "losses", exhausted)
    with pytest.raises(GPUOutOfMemoryError, match="memory plan fp32/resident/keep:1: CUDA ") as ended:
        run_training(make_stage(tmp_path, tiny20, CLIPS, memory="fp32/resident/keep:1"))
    assert ended.value.exit_code == exitcodes.GPU_OUT_OF_MEMORY and "long story" not in str(ended.value)


def test_a_newer_attempt_keeps_its_run_folder(tmp_path: Path, tiny20: Path) -> None:
    class Taken:
        def check(self) -> None:
            raise Superseded("a newer attempt owns this run")

    stage = make_stage(tmp_path, tiny20, CLIPS, checkpoint_step_interval=2)
    stage.fence = Taken()  # type: ignore[assignment]
    with pytest.raises(Superseded):
        run_training(stage)
    assert checkpoint.listed(stage.run.checkpoints) == [] and not stage.run.result.exists()


def test_items_missing_from_the_store_are_named_with_their_clip(tmp_path: Path, tiny20: Path) -> None:
    stage = make_stage(tmp_path, tiny20, CLIPS[:1])
    Store(tmp_path / "cache").path(VIDEO, "av").unlink()
    with pytest.raises(DataError, match="datasets/videos/a: its video item av is not in the cache"):
        run_training(stage)
    Store(tmp_path / "cache").put(VIDEO, "av", {"latents": torch.zeros(128, 3, 2, 2)}, {})
    with pytest.raises(DataError, match=r"shape \[128, 3, 2, 2\], the index says \[128, 2, 2, 2\]"):
        run_training(stage)


def test_held_out_clips_are_measured_and_never_trained_on(tmp_path: Path, tiny20: Path) -> None:
    kept = [clip("x", held_out=True), clip("y", held_out=True, sounding=False)]
    stage = make_stage(tmp_path, tiny20, [*CLIPS, *kept], max_train_steps=1)
    assert [sample.id for sample in choose([*CLIPS, *kept])] == ["clips/x", "clips/y"]
    seen = train(stage)
    assert "held-out loss: over 2 held-out clips" in seen.messages
    many = [clip(f"{i:02}") for i in range(50)]
    assert len(choose(many)) == BORROWED and choose(many) == choose(many[::-1])
    assert choose([*CLIPS[:2], replace(CLIPS[2], probability=0.0)]) == tuple(CLIPS[:2])  # switched off


def test_the_held_out_loss_is_the_mean_over_clips_and_levels(
    tmp_path: Path, tiny20: Path, transformer: Callable[[], LTX2Transformer]
) -> None:
    """Levels as agreed, equal for both modalities, nothing given, audio over sounding clips only."""
    assert LEVELS == (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
    stage = make_stage(tmp_path, tiny20, CLIPS[:2], max_train_steps=1, audio_loss_weight=0.5)
    seen = train(stage)
    from ltx2_job.training.draw import held_out_draw

    reader, model = Reader(Store(tmp_path / "cache")), transformer()
    parts: dict[str, list[float]] = {"video": [], "audio": []}
    for sample in CLIPS[:2]:
        pick = next(
            p for i in range(9) for p in plan(CLIPS[:2], stage.config, i, 1).ranks[0][0].picks if p.sample is sample
        )
        batch = reader.batch([pick], 1, 1)
        for level in LEVELS:
            with torch.no_grad():
                part = losses(model, batch, held_out_draw(stage.config.seed, sample.id, (2, 2, 2), 9, level), 1.0)
            parts["video"].append(part.video.item())
            if sample.sounding:
                parts["audio"].append(part.audio.item())
    expected = sum(parts["video"]) / 12 + 0.5 * sum(parts["audio"]) / 6
    assert seen.measured[0] == (0, pytest.approx(expected, rel=1e-6))


@pytest.mark.parametrize(("device", "kind"), [("cpu", GPUOutOfMemoryError), ("cuda", RuntimeError)])
def test_host_memory_is_the_devices_on_the_cpu_alone(device, kind):
    """Beside a GPU it is the host's (79): a smaller plan would not help."""
    stage = SimpleNamespace(plan=SimpleNamespace(device=device, memory="fp32/resident/keep:48"))
    with pytest.raises(kind) as raised, trainer._out_of_memory_named(stage):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
    assert type(raised.value) is kind
