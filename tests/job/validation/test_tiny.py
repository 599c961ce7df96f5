"""Validation and generation on the tiny model: real modules, real files, random weights."""

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from job.validation.test_media import psnr, read, yuv_round_trip
from ltx2_job.cli import main
from ltx2_job.config import resolve
from ltx2_job.data.index import Index, Sample
from ltx2_job.errors import ConfigError, Stopped, Superseded
from ltx2_job.export import Facts, load_lora, write_lora
from ltx2_job.fence import Fence, Owner
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.autoencoders import decode_video
from ltx2_job.models.load import Checkpoint
from ltx2_job.stage import Stage, StagePlan, StopFlag
from ltx2_job.store import TEXT, Store
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.validation import t2v
from ltx2_job.validation.lora import apply_lora
from ltx2_job.validation.media import to_frames
from ltx2_job.validation.sampler import Prompt, sample
from ltx2_job.validation.t2v import make_validator, requests
from ltx2_job.workspace import RunFolder, Workspace

CONFIG = {
    "pretrained_model_name_or_path": "models/tiny/ltx-2-tiny.safetensors",
    "max_train_steps": 10,
    "validation_prompt": "a red fox",
    "validation_resolution": "96x64",
    "validation_num_video_frames": 9,
    "validation_num_inference_steps": 3,
    "validation_seed": 7,
}
DATASETS = [{"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "clips"}]
SAMPLE = Sample("clips/a", "clips", "a.mp4", 96, 64, 9, 25.0, 9, True, "v", "a", ("t",), 0, 1.0, False)


@pytest.fixture(scope="module")
def checkpoint(tiny20) -> Checkpoint:
    return Checkpoint.open(tiny20)


@pytest.fixture(scope="module")
def transformer(checkpoint):
    """Loads the transformer anew: adapters and hooks of one test must not reach another."""
    return lambda form="fp32": checkpoint.transformer(MemoryPlan(form), "cpu")


@pytest.fixture(scope="module")
def lora(transformer):
    """A LoRA that changes something: random A and B of rank 4 on every attention."""
    torch.manual_seed(0)
    adapters = AdapterSet.create(transformer(), rank=4, alpha=4.0, seed=0)
    return {key: 0.3 * torch.randn(view.shape) for key, view in adapters.views.items()}


@pytest.fixture
def setup(tmp_path, checkpoint):
    """A stage, an index and a store as the cache stage leaves them, with random captions."""
    generator = torch.Generator().manual_seed(1)
    store = Store(tmp_path / "cache")
    for key in ("prompt", "negative"):
        text = {name: torch.randn(128, 64, generator=generator).bfloat16() for name in ("video", "audio")}
        store.put(TEXT, key, text, {})
    prompts = {"validation": {"text": "a red fox", "key": "prompt"}, "negative": {"text": "", "key": "negative"}}
    index = Index((SAMPLE,), prompts, str(store.root))
    config = resolve(CONFIG, DATASETS).training
    run = RunFolder(tmp_path / "runs" / "fox")
    stage = Stage("train", config, (), StagePlan(), Workspace(tmp_path), run, "fox")
    return SimpleNamespace(stage=stage, index=index, store=store, config=config, run=run)


def validator(setup, checkpoint, **changes):
    return make_validator(setup.stage, checkpoint, replace(setup.index, **changes), setup.store)


def expected_frames(setup, checkpoint, model) -> np.ndarray:
    """What the VAE itself makes of the same sampling, without any file."""
    texts = {key: setup.store.get(TEXT, key) for key in ("prompt", "negative")}
    prompt, negative = (Prompt(texts[key]["video"], texts[key]["audio"]) for key in ("prompt", "negative"))
    video, _ = sample(model, requests(setup.config)[0], prompt, negative)
    return to_frames(decode_video(checkpoint.video_vae("cpu", torch.float32), video)[0])


def test_the_file_is_what_the_vae_decodes(setup, checkpoint, transformer):
    """Catches frames that are shuffled, shifted, scaled or of another clip between sampling and file."""
    model = transformer()
    files = validator(setup, checkpoint)(model, 500)
    assert files == [setup.run.validation / "step-0000500" / "validation-96x64.mp4"]
    frames, sound = read(files[0])
    expected = expected_frames(setup, checkpoint, model)
    assert frames.shape == (9, 64, 96, 3)
    assert psnr(frames, yuv_round_trip(expected)) > 30
    assert sound is not None and sound.shape[0] == 2 and np.abs(sound).max() > 0
    with av.open(str(files[0])) as container:
        assert container.streams.audio[0].rate == 24000
        assert container.streams.audio[0].layout.name == "stereo"
    page = (setup.run.validation / "index.html").read_text()
    assert "step-0000500/validation-96x64.mp4" in page and "a red fox" in page


def test_a_steps_clips_are_complete_or_absent(setup, checkpoint, monkeypatch):
    """Killed at the second of two clips: the step's folder must not look as if it were made; the next time it is.

    Then killed between clips and page: the page of the next attempt shows them.
    """
    setup.stage.config = setup.config.model_copy(update={"validation_resolution": ((96, 64), (64, 96))})
    monkeypatch.setattr(t2v, "sample", lambda *_: None)
    monkeypatch.setattr(t2v, "decode", lambda *_: [t2v.Clip(torch.zeros(3, 9, *size)) for size in ((64, 96), (96, 64))])
    validate, model, folder = validator(setup, checkpoint), torch.nn.Module(), setup.run.validation
    model.device = torch.device("cpu")
    write, written = t2v.write_clip, []

    def killed(path, *rest):
        if written:
            raise KeyboardInterrupt
        written.append(write(path, *rest))
        return path

    with monkeypatch.context() as patch:
        patch.setattr(t2v, "write_clip", killed)
        with pytest.raises(KeyboardInterrupt):
            validate(model, 500)
    assert written and not list(folder.glob("step-*"))

    def lost(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(t2v, "write_gallery", lost)
        with pytest.raises(KeyboardInterrupt):
            validate(model, 500)
    assert sorted(path.name for path in (folder / "step-0000500").iterdir()) == [
        "validation-64x96.mp4",
        "validation-96x64.mp4",
    ]
    assert not (folder / "index.html").exists()
    validator(setup, checkpoint)
    assert (folder / "index.html").read_text().count("<video") == 2
    kept = []  # a name that outlives a power cut has all its clips
    monkeypatch.setattr(t2v, "sync", lambda path: kept.append((path.name, len(list(path.glob("*.mp4"))))))
    assert len(validate(model, 500)) == 2 and [path.name for path in sorted(folder.iterdir())] == [
        "index.html",
        "step-0000500",
    ]
    assert kept == [(".step-0000500.tmp", 2), ("validation", 0)]


def test_the_clip_changes_with_the_lora_and_with_nothing_else(setup, checkpoint, transformer, lora):
    """Equal seed. Catches a validation of the base model, and noise that is drawn anew."""
    model = transformer()
    validate = validator(setup, checkpoint)
    before, again = (read(validate(model, step)[0])[0] for step in (0, 1))
    apply_lora(model, lora)
    after = read(validate(model, 2)[0])[0]
    assert np.array_equal(before, again)
    assert psnr(before, after) < 30


def test_settings_reach_the_clip(setup, checkpoint):
    """Catches guidance, seed, sizes or steps that are read from another key."""
    config = resolve(
        {**CONFIG, "validation_resolution": "64x96,64x64", "validation_guidance": 3, "framerate": 24}, DATASETS
    ).training
    first, second = requests(config)
    assert (first.width, first.height, second.width, second.height) == (64, 96, 64, 64)
    assert (first.frames, first.fps, first.steps, first.seed) == (9, 24.0, 3, 7)
    assert (first.video.cfg, first.audio.cfg) == (3.0, 7.0)


def test_a_run_without_sound_makes_silent_files_and_loads_no_vocoder(setup, checkpoint, transformer, monkeypatch):
    """Decision 9. Catches 200 MB of decoders loaded for nothing, and noise that is sold as sound."""

    def never(self, device):
        raise AssertionError("loaded")

    monkeypatch.setattr(Checkpoint, "vocoder", never)
    monkeypatch.setattr(Checkpoint, "audio_vae", never)
    silent = replace(SAMPLE, audio_key=None, audio_latents=0, sounding=False)
    files = validator(setup, checkpoint, samples=(silent,))(transformer(), 0)
    frames, sound = read(files[0])
    assert frames.shape == (9, 64, 96, 3) and sound is None


def test_decoders_are_freed(setup, checkpoint, transformer, monkeypatch):
    """Catches decoders that stay on the GPU beside the training until it runs out of memory."""
    alive = []
    for part in ("video_vae", "audio_vae", "vocoder"):
        load = getattr(Checkpoint, part)

        def watched(self, *args, load=load):
            module = load(self, *args)
            alive.append(weakref.ref(module))
            return module

        monkeypatch.setattr(Checkpoint, part, watched)
    validate = validator(setup, checkpoint)
    validate(transformer(), 0)
    gc.collect()
    assert len(alive) == 3 and not any(reference() for reference in alive)


def test_no_clips_without_a_prompt_or_where_they_are_switched_off(setup, checkpoint):
    """Catches a KeyError at step 100, and eight ranks that make the same clip."""
    assert validator(setup, checkpoint, prompts={}) is None
    setup.stage.rank = 1
    assert validator(setup, checkpoint) is None
    setup.stage.rank = 0
    setup.stage.config = resolve({**CONFIG, "validation_disable": True}, DATASETS).training
    assert validator(setup, checkpoint) is None


def test_stop_and_fence_are_respected(setup, checkpoint, transformer):
    """Catches a validation that outlives SIGTERM, and files of an attempt that no longer owns the run."""
    setup.stage.stop = StopFlag()
    setup.stage.fence = Fence.claim(setup.run, Owner.now("uid", 1, "pod-1"))
    validate = validator(setup, checkpoint)
    Fence.claim(setup.run, Owner.now("uid", 2, "pod-2"))
    with pytest.raises(Superseded):
        validate(transformer(), 0)
    setup.stage.stop.request()
    with pytest.raises(Stopped):
        validate(transformer(), 0)
    assert not setup.run.validation.exists()


# --- using a LoRA ---------------------------------------------------------------------------------------------------


def velocity(model):
    """The velocity of one fixed input, both modalities."""
    from ltx2_job.models.transformer import Stream

    generator = torch.Generator().manual_seed(2)

    def rand(*shape):
        return torch.randn(*shape, generator=generator)

    video = Stream(rand(1, 12, 128), torch.tensor([0.7]), None, rand(1, 128, 64))
    audio = Stream(rand(1, 9, 128), torch.tensor([0.4]), None, rand(1, 128, 64))
    with torch.no_grad():
        return torch.cat(
            [each.float().flatten() for each in model.velocity(video, audio, model.tables((2, 2, 3), 25.0, 9))]
        )


@pytest.mark.parametrize("form", ["fp32", "bf16"])
def test_a_used_lora_computes_what_was_trained(transformer, lora, form):
    """Bit for bit. Catches merging into bf16 weights (rounds the update away), a dropped scale, A and B swapped."""
    trained, used, base = transformer(form), transformer(form), transformer(form)
    AdapterSet.create(trained, rank=4, alpha=4.0, seed=0).load(lora, "test")
    assert apply_lora(used, lora) == 2 * 24
    assert torch.equal(velocity(trained), velocity(used))
    assert not torch.allclose(velocity(base), velocity(used), atol=1e-2)


def test_a_lora_computes_the_same_from_any_place_in_memory(transformer, lora):
    """A file's header decides where its tensors lie, and matrix products round by that. Catches its views in use."""
    found = []
    for shift in (0, 8, 24, 56):
        model, moved = transformer(), {}
        for key, tensor in lora.items():
            room = torch.empty(tensor.nbytes + 64, dtype=torch.uint8)  # the allocator's begin at multiples of 64
            moved[key] = room[shift : shift + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        apply_lora(model, moved)
        found.append(velocity(model))
    assert all(torch.equal(found[0], one) for one in found)


def test_both_files_are_the_same_lora(tmp_path, transformer, lora):
    """alpha 8 of rank 4. Catches a scale that one of the forms loses."""
    trained = transformer()
    AdapterSet.create(trained, rank=4, alpha=8.0, seed=0).load(lora, "test")
    facts = Facts("tiny", "2.0", 1, "", "")
    outputs = []
    for file in write_lora(RunFolder(tmp_path), lora, 4, 8.0, facts):
        model = transformer()
        apply_lora(model, load_lora(file))
        outputs.append(velocity(model))
    assert torch.equal(*outputs)
    assert torch.allclose(outputs[0], velocity(trained), atol=1e-5)


def test_official_names_outside_the_blocks_are_found(transformer):
    """Other trainers adapt `adaln_single` too. Catches looking official names up without renaming them."""
    layer = "adaln_single.emb.timestep_embedder.linear_1"
    model = transformer()
    module = model.get_submodule("time_embed.emb.timestep_embedder.linear_1")
    before = velocity(model)
    tensors = {
        f"diffusion_model.{layer}.lora_A.weight": torch.ones(2, module.in_features),
        f"diffusion_model.{layer}.lora_B.weight": torch.ones(module.out_features, 2),
    }
    assert apply_lora(model, tensors) == 1
    assert not torch.equal(before, velocity(model))


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight": (4, 64)}, "only one of lora_A and lora_B"),
        (
            {
                "diffusion_model.transformer_blocks.7.attn1.to_q.lora_A.weight": (4, 64),
                "diffusion_model.transformer_blocks.7.attn1.to_q.lora_B.weight": (64, 4),
            },
            "transformer_blocks.7.attn1.to_q is no linear layer of this model",
        ),
        (
            {
                "diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight": (4, 4096),
                "diffusion_model.transformer_blocks.0.attn1.to_q.lora_B.weight": (4096, 4),
            },
            "the layer 64 x 64",
        ),
        ({}, "holds no LoRA tensors"),
    ],
)
def test_a_lora_of_another_model_is_refused(transformer, tensors, text):
    """Catches a LoRA that is silently ignored, in whole or in part."""
    with pytest.raises(ConfigError, match=text):
        apply_lora(transformer(), {key: torch.zeros(shape) for key, shape in tensors.items()})


# --- the verb generate ----------------------------------------------------------------------------------------------


def generate(model: Path, output: Path, *options: str) -> np.ndarray:
    words = ["generate", "--model", str(model), "--prompt", "a red fox", "--width", "64", "--height", "64"]
    assert main([*words, "--frames", "9", "--steps", "2", "--device", "cpu", "--output", str(output), *options]) == 0
    return read(output)[0]


def test_generate_uses_either_form_of_a_lora(tiny20, tmp_path, lora, capsys):
    """From prompt to file through text encoder, transformer and decoders. Catches a --lora that changes nothing."""
    official, diffusers = write_lora(RunFolder(tmp_path), lora, 4, 8.0, Facts("tiny", "2.0", 1, "", ""))
    base = generate(tiny20, tmp_path / "base.mp4")
    first = generate(tiny20, tmp_path / "a.mp4", "--lora", str(official))
    second = generate(tiny20, tmp_path / "b.mp4", "--lora", str(diffusers))
    assert np.array_equal(first, second) and psnr(base, first) < 40
    assert str(tmp_path / "b.mp4") in capsys.readouterr().out


def test_generate_with_the_official_guidance_on_2_3(tiny23, tmp_path, capsys):
    """All four passes. Catches options that are parsed and not used, and a block that the model does not have."""
    plain = generate(tiny23, tmp_path / "a.mp4")
    full = generate(
        tiny23, tmp_path / "b.mp4", "--stg", "1", "--stg-block", "1", "--modality-guidance", "3", "--rescale", "0.7"
    )
    assert not np.array_equal(plain, full)
    words = [
        "generate",
        "--model",
        str(tiny23),
        "--prompt",
        "x",
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "c.mp4"),
    ]
    assert main([*words, "--stg", "1"]) == 64
    assert "--stg-block 28: this model has blocks 0 to 1" in capsys.readouterr().err


def test_a_wrong_model_or_lora_is_one_line(tmp_path, tiny20, capsys):
    """Catches a traceback for a mistyped path."""
    words = ["generate", "--prompt", "x", "--output", str(tmp_path / "a.mp4"), "--model"]
    assert main([*words, str(tmp_path / "absent.safetensors")]) == 66
    assert main([*words, str(tiny20), "--lora", str(tmp_path / "absent.safetensors")]) == 78
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2 and all("absent.safetensors" in line for line in lines)


def test_the_tiny_verb_writes_a_model(tmp_path, capsys):
    """Catches a verb whose arguments are passed in the wrong order."""
    assert main(["tiny", str(tmp_path / "tiny"), "--version", "2.3", "--blocks", "1", "--seed", "5"]) == 0
    path = Path(capsys.readouterr().out.strip())
    model = Checkpoint.open(path)
    assert model.version == "2.3" and model.gemma is not None
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert json.loads(header["__metadata__"]["config"])["transformer"]["num_layers"] == 1


@pytest.mark.parametrize(("version", "block"), [("2.0", 29), ("2.3", 28)])
def test_spatio_temporal_guidance_leaves_out_the_official_block(tiny20, tiny23, tmp_path, capsys, version, block):
    """The generations differ. A tiny model does not have that block and says so: the pass would be wasted."""
    model = tiny20 if version == "2.0" else tiny23
    words = ["generate", "--model", str(model), "--prompt", "x", "--device", "cpu", "--stg", "1"]
    assert main([*words, "--output", str(tmp_path / "a.mp4")]) == 64
    assert f"--stg-block {block}: this model has blocks 0 to 1" in capsys.readouterr().err
