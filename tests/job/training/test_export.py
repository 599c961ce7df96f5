"""LoRA files: what diffusers makes of both forms, what is read back, and what is refused by name."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ltx2_job.errors import ConfigError, Superseded
from ltx2_job.export import Facts, load_lora, to_bytes, write_lora
from ltx2_job.models.load import Checkpoint
from ltx2_job.models.transformer import LTX2Transformer, Stream
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.workspace import RunFolder

Load = Callable[[], LTX2Transformer]
FACTS = Facts("ltx-2-tiny.safetensors", "2.0", 20, "c" * 64, "d" * 64, ("sks", "a style"))
LAYER = "transformer_blocks.0.attn1.to_q"


def trained(model: LTX2Transformer, alpha: float = 12.0) -> AdapterSet:
    adapters = AdapterSet.create(model, rank=4, alpha=alpha, seed=1)
    adapters.weight.normal_(generator=torch.Generator().manual_seed(0)).mul_(0.2)
    return adapters


def answer(model: LTX2Transformer) -> torch.Tensor:
    """Both velocities for one fixed input, as one vector."""
    made = torch.Generator().manual_seed(9)
    video, audio, text, sound = (
        torch.randn(1, n, w, generator=made) for n, w in ((8, 128), (5, 128), (16, 64), (16, 64))
    )
    level = torch.tensor([0.6])
    with torch.no_grad():
        out = model.velocity(
            Stream(video, level, None, text), Stream(audio, level, None, sound), model.tables((2, 2, 2), 25.0, 5)
        )
    return torch.cat([part.flatten() for part in out])


def in_diffusers(tiny20: Path, model: LTX2Transformer, path: Path) -> torch.Tensor:
    """The answer after the file went through load_lora_weights of a whole LTX2Pipeline (Gemma left out)."""
    from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    parts = Checkpoint.open(tiny20)
    pipeline = LTX2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=parts.video_vae("cpu", torch.float32),
        audio_vae=parts.audio_vae("cpu"),
        text_encoder=None,
        tokenizer=None,
        connectors=parts.connectors("cpu", torch.float32),
        transformer=model,
        vocoder=parts.vocoder("cpu"),
    )
    pipeline.load_lora_weights(str(path))
    return answer(model)


def test_diffusers_makes_of_both_forms_what_was_trained(tiny20: Path, transformer: Load, tmp_path: Path) -> None:
    """alpha = 3 x rank. Catches: alpha not folded (output off by the factor), or not in the header."""
    base = answer(transformer())
    model = transformer()
    adapters = trained(model)
    expected = answer(model)
    official, renamed = write_lora(RunFolder(tmp_path), adapters.views, adapters.rank, adapters.alpha, FACTS)
    first, second = (in_diffusers(tiny20, transformer(), path) for path in (official, renamed))
    assert (expected - base).abs().max() > 1e-2
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-5)


def test_both_forms_read_back_to_the_same_official_keys(transformer: Load, tmp_path: Path) -> None:
    adapters = trained(transformer())
    official, renamed = (load_lora(path) for path in write_lora(RunFolder(tmp_path), adapters.views, 4, 12.0, FACTS))
    assert official.keys() == renamed.keys() == adapters.views.keys()
    for key, view in adapters.views.items():
        torch.testing.assert_close(official[key], view * (3.0 if ".lora_B." in key else 1.0))
        torch.testing.assert_close(renamed[key], official[key])


def test_the_header_says_what_the_file_is(transformer: Load, tmp_path: Path) -> None:
    adapters = trained(transformer())
    official, renamed = write_lora(RunFolder(tmp_path), adapters.views, 4, 12.0, FACTS)
    with safe_open(official, "pt") as file:
        header = file.metadata()
    assert header == {
        "format": "pt",
        "base_model": "ltx-2-tiny.safetensors",
        "model_version": "2.0",
        "lora_rank": "4",
        "lora_alpha": "4",
        "trained_alpha": "12",
        "training_steps": "20",
        "config_hash": "c" * 64,
        "data_hash": "d" * 64,
        "trigger_words": '["sks", "a style"]',
    }
    with safe_open(renamed, "pt") as file:
        settings = json.loads(file.metadata()["lora_adapter_metadata"])
    assert settings["transformer.r"] == 4 and settings["transformer.lora_alpha"] == 12.0


def test_equal_loras_are_equal_files(transformer: Load, tmp_path: Path) -> None:
    """The library orders the header by a hash table seeded per process: the bytes must not show it."""
    adapters = trained(transformer())
    first = write_lora(RunFolder(tmp_path / "1"), adapters.views, 4, 12.0, FACTS)
    second = write_lora(RunFolder(tmp_path / "2"), adapters.views, 4, 12.0, FACTS)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    raw = to_bytes({"x": torch.arange(3.0)}, {str(i): "é" for i in range(20)})
    (tmp_path / "x.safetensors").write_bytes(raw)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {str(i): "é" for i in range(20)}
    assert torch.equal(load_file(tmp_path / "x.safetensors")["x"], torch.arange(3.0))
    assert raw.index(b'"0"') < raw.index(b'"1"') < raw.index(b'"9"')


def test_a_newer_attempt_keeps_its_files(transformer: Load, tmp_path: Path) -> None:
    def guard() -> None:
        raise Superseded("a newer attempt owns this run")

    adapters = trained(transformer())
    with pytest.raises(Superseded):
        write_lora(RunFolder(tmp_path), adapters.views, 4, 12.0, FACTS, guard)
    assert list(tmp_path.iterdir()) == []


@dataclass
class Case:
    tensors: dict[str, Any]
    words: str
    header: dict[str, str] = field(default_factory=dict)


A, B = torch.ones(2, 64), torch.ones(64, 2)
REFUSED = {
    "kohya": Case(
        {"lora_unet_blocks_0.lora_down.weight": A, "lora_unet_blocks_0.lora_up.weight": B}, "is a Kohya file"
    ),
    "down and up": Case({f"diffusion_model.{LAYER}.lora_down.weight": A}, "is a Kohya file"),
    "lycoris": Case({"lycoris_blocks_0.lokr_w1": A}, "is a LyCORIS file"),
    "dora": Case({f"transformer.{LAYER}.lora_magnitude_vector": A}, "is a DoRA file"),
    "bare": Case({f"{LAYER}.lora_A.weight": A, f"{LAYER}.lora_B.weight": B}, "has bare or unknown names"),
    "half": Case({f"transformer.{LAYER}.lora_A.weight": A}, f"layer {LAYER} has lora_A"),
    "ranks": Case(
        {f"transformer.{LAYER}.lora_A.weight": A, f"transformer.{LAYER}.lora_B.weight": B[:, :1].contiguous()},
        "ranks must agree",
    ),
    "full weights": Case({f"transformer.{LAYER}.weight": A}, "is no part of a LoRA"),
    "model": Case(
        {f"model.diffusion_model.{LAYER}.weight": A, "text_embedding_projection.x": B}, "is a model, not a LoRA"
    ),
    "text path": Case({"text_embedding_projection.aggregate_embed.lora_A.weight": A}, "a LoRA of the text path"),
    "empty": Case({}, "holds no tensor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_kinds_are_refused_by_name(tmp_path: Path, name: str) -> None:
    """None of these may load as nothing, as it does elsewhere."""
    path = tmp_path / "theirs.safetensors"
    save_file(REFUSED[name].tensors, path)
    with pytest.raises(ConfigError, match=f"lora: .*theirs.safetensors .*{REFUSED[name].words}"):
        load_lora(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("hello")
    for path in (tmp_path / "x.safetensors", tmp_path / "absent.safetensors"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_lora(path)


def test_the_scale_is_found_wherever_a_file_has_it(tmp_path: Path) -> None:
    """An alpha tensor per layer; diffusers' header with a pattern or rank stabilisation; neither: 1."""

    def scale(tensors: dict[str, torch.Tensor], header: dict[str, Any], prefix: str = "transformer.") -> float:
        path = tmp_path / "x.safetensors"
        stem = f"{prefix}{LAYER}"
        pair = {f"{stem}.lora_A.weight": A, f"{stem}.lora_B.weight": B}
        text = (
            {"lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in header.items()})}
            if header
            else None
        )
        save_file(pair | {f"{stem}.{k}": v for k, v in tensors.items()}, path, text)
        return load_lora(path)[f"diffusion_model.{LAYER}.lora_B.weight"][0, 0].item()

    assert scale({}, {}) == 1.0
    assert scale({"alpha": torch.tensor(6.0)}, {}, "diffusion_model.") == 3.0
    assert scale({}, {"r": 2, "lora_alpha": 8}) == 4.0
    assert scale({}, {"r": 2, "lora_alpha": 8, "alpha_pattern": {LAYER: 1}}) == 0.5
    assert scale({}, {"r": 2, "lora_alpha": 8, "use_rslora": True}) == pytest.approx(8 / 2**0.5)
