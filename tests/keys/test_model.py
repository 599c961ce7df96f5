"""The keys about the model: which one, in which precision, how much of it is recomputed, and the seed."""

import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors import safe_open

from cache_bench import Bench
from job.validation.test_tiny import velocity
from key_runs import Trained, Trainings
from ltx2_job import estimate
from ltx2_job.caching import stage as cache_stage
from ltx2_job.config import Resolved, resolve
from ltx2_job.errors import ConfigError
from ltx2_job.hub.choice import Entry, Listing, combined
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.blocks import Block
from ltx2_job.models.load import Checkpoint
from ltx2_job.models.tiny import write_tiny
from ltx2_job.places import Repository
from ltx2_operator import sizing
from ltx2_operator.api import Spec
from ltx2_operator.gpus import CPU, find
from training_runs import DATASET

REAL_OPEN = cache_stage.open_checkpoint  # the bench puts a stand-in in its place


def planned(**config: Any) -> tuple[Spec, Resolved]:
    return Spec.model_validate({"config": config, "datasets": [DATASET]}), resolve(config, [DATASET])


@pytest.mark.witness("model_family", "ltxvideo2")
def test_model_family() -> None:
    """There is one; another one's files are not taken for it."""
    assert resolve({"model_family": "ltxvideo2"}, [DATASET]) == resolve({}, [DATASET])
    with pytest.raises(ConfigError, match="model_family: unknown value 'wan'; write one of ltxvideo2"):
        resolve({"model_family": "wan"}, [DATASET])


@pytest.mark.witness("model_flavour", "dev", "2.3-dev", "2.3-distilled")
def test_model_flavour() -> None:
    """The generation whose sizes a run is planned with, where its checkpoint is not on this machine."""
    sizes = {name: estimate.known_model(name) for name in ("2.0", "2.3")}
    assert sizes["2.0"] != sizes["2.3"]
    for flavour, generation in (("dev", "2.0"), ("2.0", "2.0"), ("2.3-dev", "2.3"), ("2.3-distilled", "2.3")):
        spec, resolved = planned(model_flavour=flavour)
        plan = sizing.size(spec, resolved, find("h200"))
        assert plan.terms == sizing.size(spec, resolved, find("h200"), model=sizes[generation]).terms


def header(run: Trained) -> dict[str, str]:
    with safe_open(run.stage.run.lora, "pt") as file:
        return dict(file.metadata())


@pytest.mark.witness("pretrained_model_name_or_path")
def test_pretrained_model_name_or_path(trainings: Trainings, tiny20: Path, tiny23: Path) -> None:
    """The checkpoint that is trained: its name and generation are in the LoRA, its weights in the loss."""
    first, second = trainings(model=tiny20), trainings(model=tiny23, widths=(64, 32))
    assert [header(run)["model_version"] for run in (first, second)] == ["2.0", "2.3"]
    assert first.reported("loss_video") != second.reported("loss_video")


@pytest.mark.witness("pretrained_gemma_model_name_or_path")
def test_pretrained_gemma_model_name_or_path(bench: Bench, tmp_path_factory, tiny20: Path) -> None:
    """Unset, the folder beside the checkpoint; set, that one, and captions become other numbers."""
    other = write_tiny(tmp_path_factory.mktemp("other"), "2.0", seed=5).parent / "gemma"
    named = bench.workspace.root / "models" / "my-gemma"
    shutil.copytree(other, named)
    encoded = {}
    for gemma, folder in ((None, tiny20.parent / "gemma"), ("models/my-gemma", named)):
        bench.config |= {"pretrained_model_name_or_path": str(tiny20), "pretrained_gemma_model_name_or_path": gemma}
        found = REAL_OPEN(bench.stage())
        encoder = Checkpoint.open(tiny20, folder).text_encoder("cpu", torch.float32)
        ((wanted, _),) = encoder.encode(["a fox"])
        ((encoded[gemma], _),) = found.text_encoder("cpu", torch.float32).encode(["a fox"])
        assert torch.equal(encoded[gemma], wanted)
    assert not torch.allclose(encoded[None], encoded["models/my-gemma"], atol=1e-3)


@pytest.mark.witness("ltx2_combined_filename")
def test_ltx2_combined_filename() -> None:
    """Which file of a repository is the model; unset, the flavour's."""
    names = ("ltx-2-19b-dev.safetensors", "mine.safetensors", "other.safetensors")
    listing = Listing(Repository("own/tune"), "0" * 40, dict.fromkeys(names, Entry(1, "sha256:0")))
    for value, opened in ((None, names[0]), ("mine.safetensors", names[1]), ("other.safetensors", names[2])):
        assert combined(listing, planned(ltx2_combined_filename=value)[1].training).opened == opened


@pytest.mark.witness("mixed_precision", "bf16", "no")
@pytest.mark.parametrize(("value", "dtype"), [("bf16", torch.bfloat16), ("no", torch.float32)])
def test_mixed_precision(tiny20: Path, value: str, dtype: torch.dtype) -> None:
    """On a GPU the plan's form follows it, and the model is loaded and computes in that form; a CPU takes fp32."""
    plan = sizing.size(*planned(mixed_precision=value), find("h200")).memory
    model = Checkpoint.open(tiny20).transformer(MemoryPlan.parse(plan), "cpu")
    assert {block.attn1.to_q.weight.dtype for block in model.transformer_blocks} == {dtype}
    computed = []
    model.transformer_blocks[0].attn1.to_q.register_forward_hook(lambda *call: computed.append(call[2].dtype))
    velocity(model)
    assert computed == [dtype]
    assert sizing.size(*planned(mixed_precision=value), CPU, model=estimate.read_model(tiny20)).memory[:4] == "fp32"


@pytest.mark.witness("gradient_checkpointing")
@pytest.mark.parametrize(("value", "runs"), [(True, 2), (False, 1)])
def test_gradient_checkpointing(trainings: Trainings, tiny20: Path, value: bool, runs: int) -> None:
    """How often a step computes each block: once, or once more in the backward pass. Unset, the plan decides."""
    spec, resolved = planned(gradient_checkpointing=value)
    (plan,) = sizing.ladder(spec, resolved, CPU)
    calls = []
    forward = Block.forward

    def counted(self: Block, *state: Any) -> Any:
        if torch.is_grad_enabled():
            calls.append(self)
        return forward(self, *state)

    with mock.patch.object(Block, "forward", counted):
        trainings(memory=plan, gradient_checkpointing=value)
    assert len(set(calls)) == 2 and len(calls) == 2 * runs
    assert len(sizing.ladder(*planned(), CPU)) == 3


@pytest.mark.witness("seed")
def test_seed(trainings: Trainings) -> None:
    """The same seed gives the same bits; another one other initial weights, other noise and other levels."""
    first, again, other = (trainings(seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(tensor, again.adapter(1)[key]) for key, tensor in first.adapter(1).items())
    assert not any(
        torch.equal(tensor, other.adapter(1)[key]) for key, tensor in first.adapter(1).items() if ".lora_A." in key
    )
    (_, one), (_, two), (_, three) = (run.work[0] for run in (first, again, other))
    assert torch.equal(one.video_noise, two.video_noise) and not torch.equal(one.video_noise, three.video_noise)
    assert one.video_sigma == two.video_sigma != three.video_sigma
