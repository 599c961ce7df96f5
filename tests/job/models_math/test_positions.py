"""Spans, packing and rotary tables against the reference's token-by-token formulas."""

import numpy as np
import pytest
import torch

from ltx2_job.models import positions
from reference import rope

from .conftest import CONFIGS

CONFIG = {
    **CONFIGS["2.0"],
    "vae_scale_factors": (8, 32, 32),
    "audio_scale_factor": 4,
    "audio_hop_length": 160,
    "audio_sampling_rate": 16000,
    "pos_embed_max_pos": 20,
    "audio_pos_embed_max_pos": 20,
    "base_height": 2048,
    "base_width": 2048,
    "rope_theta": 10000.0,
    "rope_double_precision": True,
}


def test_packing_is_frame_by_frame_and_reversible():
    latents = torch.arange(2 * 3 * 2 * 3 * 4.0).reshape(2, 3, 2, 3, 4)
    tokens = positions.pack_video(latents)
    assert tokens.shape == (2, 24, 3)
    # Token of frame 1, row 2, column 3.
    assert torch.equal(tokens[1, 1 * 12 + 2 * 4 + 3], latents[1, :, 1, 2, 3])
    assert torch.equal(positions.unpack_video(tokens, (2, 3, 4)), latents)
    with pytest.raises(RuntimeError):
        positions.unpack_video(tokens, (2, 3, 5))


@pytest.mark.parametrize(("grid", "fps"), [((1, 2, 2), 24.0), ((4, 3, 2), 25.0), ((7, 1, 1), 30000 / 1001)])
def test_video_spans(grid, fps):
    ours = positions.video_spans(CONFIG, grid, fps)
    np.testing.assert_array_equal(ours[0].transpose(0, 1).numpy(), rope.video_spans(grid, fps))


def test_spans_in_plain_numbers():
    """At 8 frames a second: the first latent is one frame long, the others eight; audio latents 10 ms, then 40 ms."""
    time = positions.video_spans(CONFIG, (3, 1, 1), 8.0)[0, 0]
    assert time.tolist() == [[0, 0.125], [0.125, 1.125], [1.125, 2.125]]
    audio = positions.audio_spans(CONFIG, 3)[0, 0]
    np.testing.assert_allclose(audio.numpy(), [[0, 0.01], [0.01, 0.05], [0.05, 0.09]], rtol=1e-6)
    np.testing.assert_array_equal(positions.audio_spans(CONFIG, 60)[0].transpose(0, 1).numpy(), rope.audio_spans(60))


def test_tables_in_double_precision():
    """All four tables; widths with and without channels that no frequency is left for (64: 30 of 32, 32: 16 of 16)."""
    grid, fps, latents = (4, 3, 2), 25.0, 30
    ours = positions.tables(CONFIG, grid, fps, latents, dtype=torch.float64)
    video, audio = rope.video_spans(grid, fps), rope.audio_spans(latents)
    wanted = {
        "video": rope.angles(video, (20, 2048, 2048), 64),
        "audio": rope.angles(audio, (20,), 32),
        "video_time": rope.angles(video[:, :1], (20,), 32),
        "audio_time": rope.angles(audio, (20,), 32),
    }
    for name, angle in wanted.items():
        table = getattr(ours, name)
        np.testing.assert_allclose(table.cos[0].flatten(1).numpy(), np.cos(angle), atol=1e-12, err_msg=name)
        np.testing.assert_allclose(table.sin[0].flatten(1).numpy(), np.sin(angle), atol=1e-12, err_msg=name)
        # Frequencies made in single precision, as very old files want them, would not pass.
        single = getattr(positions.tables({**CONFIG, "rope_double_precision": False}, grid, fps, latents), name)
        assert np.abs(single.cos[0].flatten(1).numpy() - np.cos(angle)).max() > 1e-6
    assert ours.video.cos.shape == (1, 24, 4, 8)
    assert ours.video_time.cos.shape == (1, 24, 4, 4)


def test_rotation_keeps_the_input_dtype_and_computes_in_the_tables():
    tables = positions.tables(CONFIG, (4, 3, 2), 25.0, 30)
    x = torch.randn(2, 24, 4, 16, generator=torch.Generator().manual_seed(1))
    angle = rope.angles(rope.video_spans((4, 3, 2), 25.0), (20, 2048, 2048), 64)
    wanted = [rope.turn(sample.flatten(1).double().numpy(), angle, 4) for sample in x]
    ours = positions.rotate(x, tables.video)
    np.testing.assert_allclose(ours.flatten(2).numpy(), wanted, atol=2e-6)
    half = positions.rotate(x.bfloat16(), tables.video)
    assert half.dtype == torch.bfloat16
    # Rounded once at the end, not at every step.
    assert torch.equal(half, positions.rotate(x.bfloat16().float(), tables.video).bfloat16())


def test_tables_of_samples_with_their_own_spans():
    """Spans given per sample make tables per sample."""
    slow, fast = (positions.video_spans(CONFIG, (2, 1, 1), fps) for fps in (12.0, 24.0))
    both = positions.tables_of_spans(CONFIG, torch.cat((slow, fast)), positions.audio_spans(CONFIG, 3))
    for index, fps in enumerate((12.0, 24.0)):
        one = positions.tables(CONFIG, (2, 1, 1), fps, 3)
        assert torch.equal(both.video.sin[index], one.video.sin[0])
    assert not torch.equal(both.video.sin[0], both.video.sin[1])
