"""The tiny model: official in everything but its sizes, the same bytes for the same seed."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file

from ltx2_job.models.header import read_header
from ltx2_job.models.planner import plan_load
from ltx2_job.models.tiny import tiny_architecture, write_tiny
from reference import official_headers, official_names


def contents(path):
    files = sorted(file for file in path.parent.rglob("*") if file.is_file())
    return {str(file.relative_to(path.parent)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Written again in another folder, with more blocks and another seed."""
    return {
        "again": write_tiny(tmp_path_factory.mktemp("again"), "2.0"),
        "three": write_tiny(tmp_path_factory.mktemp("three"), "2.3", blocks=3, seed=1),
    }


def test_same_arguments_same_bytes(tiny20, other):
    assert contents(other["again"]) == contents(tiny20)
    assert set(contents(tiny20)) == {
        "ltx-2-tiny.safetensors",
        "gemma/config.json",
        "gemma/model.safetensors",
        "gemma/tokenizer.json",
        "gemma/tokenizer_config.json",
    }


def test_another_seed_changes_every_weight_and_blocks_are_added(tiny23, other):
    one, two = load_file(tiny23), load_file(other["three"])
    assert {name for name in two if name not in one} == {
        name for name in two if name.startswith("model.diffusion_model.transformer_blocks.2.")
    }
    fixed = ("filter", "mel_basis", "forward_basis", "inverse_basis")
    same = [name for name in one if torch.equal(one[name], two[name])]
    assert same
    assert all(name.endswith(fixed) for name in same)


@pytest.mark.parametrize("version", ["2.0", "2.3"])
def test_names_types_and_header_are_the_published_ones(version, tiny20, tiny23):
    header = read_header(tiny20 if version == "2.0" else tiny23)
    published = {name: dtype for name, dtype, *_ in official_names.read(version)}
    # One residual block stands where the published autoencoders have several, and fewer connector layers.
    assert {name: entry.dtype for name, entry in header.tensors.items()}.items() <= published.items()
    wanted = official_headers.config(version)
    assert header.config.keys() == wanted.keys()
    for section in ("transformer", "audio_vae", "vocoder", "scheduler"):
        assert wanted[section].keys() <= header.config[section].keys(), section
    assert header.metadata.get("model_version") == {"2.0": None, "2.3": "2.3.0"}[version]
    assert [kind for kind, _ in header.config["vae"]["decoder_blocks"]] == [
        kind for kind, _ in wanted["vae"]["decoder_blocks"]
    ]
    assert [kind for kind, _ in header.config["vae"]["encoder_blocks"]] == [
        kind for kind, _ in wanted["vae"]["encoder_blocks"]
    ]
    for key, value in wanted["transformer"].items():
        if isinstance(value, bool | str | float | None):
            assert header.config["transformer"][key] == value, key


@pytest.mark.parametrize("version", ["2.0", "2.3"])
def test_architecture_survives_the_file(version, tiny20, tiny23):
    path = tiny20 if version == "2.0" else tiny23
    plan = plan_load(read_header(path))
    assert plan.architecture == tiny_architecture(version, 2)
    assert len(plan.unused) == (3 if version == "2.0" else 0)
    total = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
    assert 10e6 < total < 40e6


def test_rules_of_a_tiny_checkpoint(tiny20, tiny23):
    for path in (tiny20, tiny23):
        arch = plan_load(read_header(path)).architecture
        config = json.loads(read_header(path).metadata["config"])
        section = config["transformer"]
        assert section["cross_attention_dim"] == arch.transformer.width
        assert section["audio_cross_attention_dim"] == arch.transformer.audio_width
        assert arch.transformer.audio_channels == arch.audio_vae.latent_channels * arch.audio_vae.mel_bins // 4
        assert arch.transformer.audio_channels == arch.audio_vae.base
        assert arch.vocoder.main.inputs == 128
        widths = (arch.text.video.width, arch.text.audio.width)
        assert widths == (
            (arch.text.hidden,) * 2 if path == tiny20 else (arch.transformer.width, arch.transformer.audio_width)
        )


@pytest.mark.parametrize(("arguments", "said"), [({"version": "2.5"}, "2.0 or 2.3"), ({"blocks": 0}, "at least 1")])
def test_other_arguments_are_refused(tmp_path, arguments, said):
    with pytest.raises(ValueError, match=said):
        write_tiny(tmp_path / "x", **arguments)
    assert not (tmp_path / "x").exists()


def test_nothing_half_written_is_left(tiny20, tmp_path, monkeypatch):
    from ltx2_job.models import tiny

    def fail(path):
        raise RuntimeError("disk gone")

    monkeypatch.setattr(tiny, "_calibrate", fail)
    with pytest.raises(RuntimeError, match="disk gone"):
        write_tiny(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["gemma"]
