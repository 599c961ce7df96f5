"""Latents: against the stock way of loading the video autoencoder, and against packing written out as loops."""

import numpy as np
import pytest
import torch

from ltx2_job.models import tiny_clips
from ltx2_job.models.autoencoders import decode_audio, decode_video, encode_audio, encode_video
from ltx2_job.models.header import read_header
from ltx2_job.models.load import Checkpoint


def statistics(path, part):
    """Mean and deviation straight from the file's bytes."""
    header, raw = read_header(path), path.read_bytes()
    pair = []
    for name in ("mean-of-means", "std-of-means"):
        entry = header.tensors[f"{part}.per_channel_statistics.{name}"]
        bits = np.frombuffer(raw[entry.begin : entry.end], np.uint16).astype(np.uint32) << 16
        pair.append(bits.view(np.float32).astype(np.float64))
    return pair


@pytest.fixture(scope="module")
def clip():
    return next(tiny_clips.clips())[None]


@pytest.fixture(scope="module")
def vae(tiny20):
    return Checkpoint.open(tiny20).video_vae("cpu", torch.float32)


@pytest.fixture(scope="module", params=["2.0", "2.3"])
def sound(request, tiny20, tiny23):
    checkpoint = Checkpoint.open(tiny20 if request.param == "2.0" else tiny23)
    return request.param, checkpoint.path, checkpoint.audio_vae("cpu"), checkpoint.vocoder("cpu")


@pytest.fixture(scope="module")
def stock(tiny20, vae, tmp_path_factory):
    """The same weights by diffusers' own single-file reader and converter."""
    from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
    from diffusers.utils import logging

    folder = tmp_path_factory.mktemp("config")
    vae.save_config(folder / "vae")
    logging.set_verbosity_error()
    return AutoencoderKLLTX2Video.from_single_file(
        str(tiny20), config=str(folder), subfolder="vae", torch_dtype=torch.float32, local_files_only=True
    )


def test_video_latents_equal_the_stock_reader_s(vae, stock, tiny20, clip):
    """Mutations: posterior sampled instead of mode; pixels in [0, 1]; not normalised."""
    mean, deviation = (value.reshape(1, -1, 1, 1, 1) for value in statistics(tiny20, "vae"))
    with torch.no_grad():
        posterior = stock.encode(clip).latent_dist
        half = stock.encode((clip + 1) / 2).latent_dist.mode()
    wanted = (posterior.mode().double().numpy() - mean) / deviation
    ours = encode_video(vae, clip)
    assert ours.dtype == torch.float32
    assert ours.shape == (1, 128, 3, 2, 3)
    assert np.abs(ours.double().numpy() - wanted).max() < 1e-4
    for wrong in (posterior.sample(generator=torch.manual_seed(0)), half):
        assert np.abs((wrong.double().numpy() - mean) / deviation - wanted).max() > 0.5
    assert np.abs(posterior.mode().double().numpy() - wanted).max() > 0.5


def test_encoding_twice_gives_the_same_bits(vae, clip):
    assert torch.equal(encode_video(vae, clip), encode_video(vae, clip))


def test_decoding_undoes_the_normalisation(vae, stock, tiny20):
    mean, deviation = (torch.tensor(value).float().view(1, -1, 1, 1, 1) for value in statistics(tiny20, "vae"))
    latents = torch.randn(1, 128, 2, 2, 2, generator=torch.manual_seed(1))
    with torch.no_grad():
        wanted = stock.decode(latents * deviation + mean).sample
    pixels = decode_video(vae, latents)
    assert pixels.shape == (1, 3, 9, 64, 64)
    assert torch.allclose(pixels, wanted.clamp(-1, 1), atol=1e-5)
    assert pixels.abs().max() <= 1


@pytest.mark.parametrize("shape", [(1, 3, 16, 64, 64), (1, 3, 17, 60, 64), (1, 3, 17, 64, 80), (1, 4, 17, 64, 64)])
def test_shapes_that_the_video_autoencoder_cannot_take(vae, shape):
    with pytest.raises(ValueError, match=r"want \[B, 3, 8k\+1, 32m, 32n\]"):
        encode_video(vae, torch.zeros(shape))


def test_pixels_outside_their_range(vae):
    with pytest.raises(ValueError, match=r"want \[-1, 1\]"):
        encode_video(vae, torch.full((1, 3, 9, 32, 32), 255.0))


def test_statistics_stay_in_fp32_beside_bf16_weights(tiny20, clip):
    vae = Checkpoint.open(tiny20).video_vae("cpu", torch.bfloat16)
    assert {p.dtype for p in vae.parameters()} == {torch.bfloat16}
    assert vae.latents_mean.dtype == vae.latents_std.dtype == torch.float32
    # The smallest that it takes: convolutions in bf16 are slow on a CPU.
    assert encode_video(vae, clip[:, :, :1, :32, :32]).dtype == torch.float32


def test_real_clips_have_about_unit_variance(tiny20, tiny23):
    """Calibrated on other clips than these: a hard-edged square over flat grey, noise in it, and a tone in steps."""
    generator = torch.manual_seed(3)
    pixels = torch.full((1, 3, 17, 64, 96), -0.2)
    for frame in range(17):
        pixels[:, 0, frame, 10:40, 4 * frame : 4 * frame + 24] = 0.9
        pixels[:, 1:, frame, 10:40, 4 * frame : 4 * frame + 24] = -0.7
    pixels += 0.05 * torch.randn(pixels.shape, generator=generator)
    from ltx2_job.models.mel import log_mel

    time = torch.arange(16000) / 16000
    wave = 0.2 * torch.sin(2 * torch.pi * 330 * (1 + (time * 4).floor()) * time)
    mel = log_mel(torch.stack([wave, wave]))[None]
    for path in (tiny20, tiny23):
        checkpoint = Checkpoint.open(path)
        assert 0.3 < encode_video(checkpoint.video_vae("cpu", torch.float32), pixels.clamp(-1, 1)).std() < 3
        assert 0.3 < encode_audio(checkpoint.audio_vae("cpu"), mel, 25).std() < 3


def test_audio_is_packed_then_normalised(sound):
    """Mutations: posterior sampled; statistics applied per channel before packing; channel fastest instead of bin."""
    _, path, audio_vae, _ = sound
    mel = next(tiny_clips.mels())[None]
    with torch.no_grad():
        mode = audio_vae.encode(mel).latent_dist.mode().double().numpy()
    mean, deviation = statistics(path, "audio_vae")
    wanted = np.zeros((1, 26, 128))
    for token in range(26):
        for channel in range(8):
            for mel_bin in range(16):
                place = channel * 16 + mel_bin
                wanted[0, token, place] = (mode[0, channel, token, mel_bin] - mean[place]) / deviation[place]
    ours = encode_audio(audio_vae, mel, 26)
    assert ours.shape == (1, 26, 128)
    assert np.abs(ours.double().numpy() - wanted).max() < 1e-4
    channel_fastest = wanted.reshape(1, 26, 8, 16).swapaxes(2, 3).reshape(1, 26, 128)
    assert np.abs(channel_fastest - wanted).max() > 0.5
    assert torch.equal(encode_audio(audio_vae, mel, 25), ours[:, :25])


@pytest.mark.parametrize("length", [24, 27, 0])
def test_sound_of_another_length_is_refused(sound, length):
    with pytest.raises(ValueError, match=f"101 mel frames give 26 audio latents; the clip needs {length}"):
        encode_audio(sound[2], next(tiny_clips.mels())[None], length)


def test_wave_has_the_length_and_rate_of_its_latents(sound):
    version, _, audio_vae, vocoder = sound
    latents = torch.randn(1, 25, 128, generator=torch.manual_seed(2))
    wave, rate = decode_audio(audio_vae, vocoder, latents)
    assert rate == {"2.0": 24000, "2.3": 48000}[version]
    assert wave.shape == (1, 2, (4 * 25 - 3) * rate // 100)
    assert wave.abs().max() <= 1
    assert wave.std() > 1e-3
    assert not torch.equal(wave, decode_audio(audio_vae, vocoder, latents.flip(1))[0])


def test_decoding_audio_undoes_packing_and_normalisation(sound):
    _, path, audio_vae, vocoder = sound
    latents = torch.randn(1, 5, 128, generator=torch.manual_seed(4))
    mean, deviation = statistics(path, "audio_vae")
    raw = latents.double().numpy() * deviation + mean
    grid = np.zeros((1, 8, 5, 16), dtype=np.float32)
    for token in range(5):
        for channel in range(8):
            grid[0, channel, token] = raw[0, token, channel * 16 : channel * 16 + 16]
    with torch.no_grad():
        wanted = vocoder(audio_vae.decode(torch.tensor(grid)).sample)
    assert torch.allclose(decode_audio(audio_vae, vocoder, latents)[0], wanted, atol=1e-5)


def test_first_stage_of_the_new_vocoder_is_clamped(tiny23):
    """Mutation: diffusers' default, which lets the first stage overshoot."""
    vocoder = Checkpoint.open(tiny23).vocoder("cpu")
    loud = torch.full((1, 2, 8, 64), 200.0)
    with torch.no_grad():
        first = vocoder.vocoder(loud)
        vocoder.vocoder.final_act_fn = None
        assert vocoder.vocoder(loud).abs().max() > 1
    assert first.abs().max() <= 1
