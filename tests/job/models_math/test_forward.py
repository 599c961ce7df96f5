"""diffusers' signature on our model: pipelines call it so, files of either class fit the other."""

import dataclasses

import pytest
import torch
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel

from ltx2_job.errors import CheckpointError
from ltx2_job.models.transformer import LTX2Transformer

from .conftest import AUDIO, CONFIGS, FPS, GRID, build

REAL = {"2.0": {}, "2.3": {key: value for key, value in CONFIGS["2.3"].items() if key not in CONFIGS["2.0"]}}


@pytest.fixture(scope="module")
def pair():
    """Our model and diffusers' with the same weights, and what a pipeline passes at one noise level."""
    case = build("2.3")
    stock = LTX2VideoTransformer3DModel(**case.config).eval()
    stock.load_state_dict(case.model.state_dict())
    arguments = {
        "hidden_states": case.video.latent,
        "audio_hidden_states": case.audio.latent,
        "encoder_hidden_states": case.video.text,
        "audio_encoder_hidden_states": case.audio.text,
        "timestep": torch.tensor([640.0, 640.0]),
        "sigma": torch.tensor([640.0, 640.0]),
        "encoder_attention_mask": torch.ones(2, 5),
        "audio_encoder_attention_mask": torch.ones(2, 5),
        "num_frames": GRID[0],
        "height": GRID[1],
        "width": GRID[2],
        "fps": FPS,
        "audio_num_frames": AUDIO,
        "return_dict": False,
    }
    return case, stock, arguments


def _close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "extra",
    [{}, {"use_cross_timestep": True}, {"isolate_modalities": True}, {"spatio_temporal_guidance_blocks": [0]}],
    ids=str,
)
def test_a_pipelines_call_equals_diffusers_at_one_noise_level(pair, extra):
    case, stock, arguments = pair
    coordinates = {
        "video_coords": stock.rope.prepare_video_coords(2, *GRID, "cpu", fps=FPS),
        "audio_coords": stock.audio_rope.prepare_audio_coords(2, AUDIO, "cpu"),
    }
    with torch.no_grad():
        theirs = stock(**arguments, **extra)
        _close(case.model(**arguments, **extra), theirs)
        _close(case.model(**arguments, **coordinates, **extra), theirs)
        output = case.model(**{**arguments, "return_dict": True}, **extra)
    _close((output.sample, output.audio_sample), theirs)


def test_timesteps_per_token_become_the_mask_of_clean_tokens(pair):
    """The image-to-video pipeline's call: 0 on the first frame's tokens, the sample's timestep elsewhere."""
    case, _, arguments = pair
    level = torch.tensor([830.0, 310.0])
    arguments = {
        **arguments,
        "timestep": torch.where(case.video.clean, 0.0, level[:, None]),
        "audio_timestep": torch.tensor([270.0, 940.0]),
        "audio_sigma": torch.tensor([270.0, 940.0]),
    }
    expected = case.run(a2v_scale=None)
    with torch.no_grad():
        _close(case.model(**{**arguments, "sigma": level}), expected)
        _close(case.model(**{**arguments, "sigma": None}), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestep": torch.tensor([[640.0] * 9 + [320.0] * 9] * 2)}, "strength between 0 and 1"),
        ({"sigma": torch.tensor([640.0, 100.0])}, "its sigma differ"),
        ({"encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 0]] * 2)}, "encoder_attention_mask must be all ones"),
        ({"audio_encoder_attention_mask": torch.zeros(2, 1, 5)}, "audio_encoder_attention_mask must be all ones"),
        ({"video_self_attention_mask": torch.ones(2, 18, 18)}, "video_self_attention_mask is not supported"),
        ({"video_keyframes_mask": torch.ones(2, 18, 1)}, "video_keyframes_mask is not supported"),
        ({"perturbation_mask": torch.ones(2)}, "perturbation_mask is not supported"),
        ({"attention_kwargs": {"gain": 2}}, "attention_kwargs .* is not supported"),
        ({"num_frames": None}, "give video_coords and audio_coords, or num_frames"),
    ],
)
def test_what_the_official_function_does_not_have_is_refused(pair, change, message):
    case, _, arguments = pair
    arguments = {
        **arguments,
        "audio_timestep": torch.tensor([640.0, 640.0]),
        "audio_sigma": torch.tensor([640.0, 640.0]),
    }
    with pytest.raises(ValueError, match=message):
        case.model(**{**arguments, **change})


def test_weights_and_configs_are_interchangeable_with_diffusers(case, tmp_path):
    stock = LTX2VideoTransformer3DModel(**case.config)
    shapes = {name: value.shape for name, value in stock.state_dict().items()}
    assert {name: value.shape for name, value in case.model.state_dict().items()} == shapes
    stock.save_pretrained(tmp_path)
    ours = LTX2Transformer.from_pretrained(tmp_path)
    assert all(torch.equal(value, stock.state_dict()[name]) for name, value in ours.state_dict().items())
    for key, value in stock.config.items():
        if not key.startswith("_"):
            # A tuple is a list once it has been through the file.
            assert ours.config[key] == (list(value) if isinstance(value, tuple) else value), key


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rope_type": "interleaved"}, "rope_type"),
        ({"use_keyframes_abs_pos_embedding": True}, "use_keyframes_abs_pos_embedding"),
        ({"use_prompt_adaln_single": False}, "use_prompt_adaln_single"),
        ({"patch_size": 2}, "patch_size"),
    ],
)
def test_a_config_that_is_not_computed_is_refused(change, field):
    with torch.device("meta"), pytest.raises(CheckpointError, match=field):
        LTX2Transformer(**{**CONFIGS["2.3"], **change})


def test_diffusers_own_recomputation_switch_is_refused(case):
    with pytest.raises(ValueError, match="gradient checkpointing"):
        case.model.enable_gradient_checkpointing()


@pytest.mark.parametrize(("version", "parameters"), [("2.0", 18_876_174_592), ("2.3", 18_988_838_144)])
def test_the_real_models_have_the_published_number_of_parameters(version, parameters):
    with torch.device("meta"):
        model = LTX2Transformer(rope_type="split", num_layers=48, **REAL[version])
    assert sum(value.numel() for value in model.parameters()) == parameters


def test_tables_are_made_once_per_shape_and_few_are_kept(case):
    model = build(case.version).model
    first = model.tables(GRID, FPS, AUDIO)
    assert model.tables(GRID, FPS, AUDIO) is first
    assert model.tables(GRID, 24.0, AUDIO) is not first
    for latents in range(20, 26):
        model.tables(GRID, FPS, latents)
    again = model.tables(GRID, FPS, AUDIO)
    assert again is not first
    assert torch.equal(again.video.cos, first.video.cos)
    assert dataclasses.is_dataclass(again)
