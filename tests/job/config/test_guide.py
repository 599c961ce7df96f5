"""The guide's JSON, byte for byte: each block parses, with exactly its corrections and its keys that come later.

The checksums were computed once from the guide itself, so that a well-meant edit of a file here fails.
"""

import hashlib
import json
from pathlib import Path

import pytest

from ltx2_job.config import resolve
from ltx2_job.errors import ConfigError

GUIDE = Path(__file__).resolve().parents[3] / "configs" / "guide"
DATASET_CORRECTIONS = [
    "datasets[0].video.num_frames 61 → 57 (8k+1)",
    "datasets[0].video.min_frames 61 → 57 (8k+1)",
    "datasets[0].audio.channels 1 → 2 (the audio VAE hears stereo; mono is put on both channels)",
]
# file: sha256 of the guide's block, corrections of its own, keys not supported yet
BLOCKS = {
    "multidatabackend.json": (
        "cb08ee3d88bc76b8c59738923fb7e3bd1a91c6db16809cbfd0b89f83ab0f050f",
        [],
        [],
    ),
    "group_offload.json": (
        "3f03cbbe9dab76cf2e61ffd8c72498938e4f8ba4181005d342adea7be3e2345a",
        [],
        ["enable_group_offload"],
    ),
    "tread.json": (
        "0922a978dae3c8dab39c810c8b62824081ac77bf2de50a06cd2a65fb98294c01",
        [],
        ["tread_config"],
    ),
    "config-7900xtx.json": (
        "984c0ed8502089904f2a1d63c3e72bc8ba213be5f8ee758b2dbb25f3955b92c5",
        [
            "base_model_precision int8-quanto → int8-torchao "
            "(the same format, int8 weights with one symmetric scale per output row; quanto itself is not used)"
        ],
        [
            "base_model_precision",
            "ramtorch",
            "ramtorch_text_encoder",
            "vae_enable_patch_conv",
            "vae_enable_slicing",
            "vae_enable_temporal_roll",
            "vae_enable_tiling",
        ],
    ),
}


def load(name):
    return json.loads((GUIDE / name).read_text())


def resolved(name):
    datasets = load("multidatabackend.json")
    return resolve({} if name == "multidatabackend.json" else load(name), datasets)


def test_every_block_is_here_and_nothing_else():
    assert {path.name for path in GUIDE.iterdir()} == set(BLOCKS)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_bytes_are_the_guides(name):
    assert hashlib.sha256((GUIDE / name).read_bytes()).hexdigest() == BLOCKS[name][0]


@pytest.mark.parametrize("name", BLOCKS)
def test_exactly_these_corrections(name):
    assert [str(item) for item in resolved(name).corrections] == BLOCKS[name][1] + DATASET_CORRECTIONS


@pytest.mark.parametrize("name", BLOCKS)
def test_exactly_these_keys_come_later(name):
    assert sorted(item.field for item in resolved(name).unsupported) == BLOCKS[name][2]


@pytest.mark.parametrize("name", BLOCKS)
def test_nothing_is_run_in_silence(name):
    found = resolved(name)
    if not BLOCKS[name][2]:
        found.require_supported()
        return
    with pytest.raises(ConfigError) as error:
        found.require_supported()
    assert sorted(problem.field for problem in error.value.problems) == BLOCKS[name][2]
    assert all(problem.message.startswith("not supported yet: ") for problem in error.value.problems)


def test_the_guides_datasets_are_read_in_full():
    """Catches a key that is accepted and forgotten."""
    clips, embeds = resolved("multidatabackend.json").datasets
    assert (clips.id, clips.type, clips.dataset_type, clips.instance_data_dir, clips.caption_strategy) == (
        "my-video-dataset",
        "local",
        "video",
        "datasets/videos",
        "textfile",
    )
    assert (clips.resolution, clips.resolution_type, clips.repeats) == (512.0, "pixel_area", 10)
    assert (clips.video.num_frames, clips.video.min_frames, clips.video.max_frames) == (57, 57, None)
    assert (clips.video.frame_rate, clips.video.bucket_strategy) == (25.0, "aspect_ratio")
    assert clips.audio.auto_split is True
    assert (embeds.id, embeds.dataset_type, embeds.default, embeds.cache_dir) == (
        "text-embeds",
        "text_embeds",
        True,
        "cache/text/ltxvideo2",
    )
    assert resolved("multidatabackend.json").clips == (clips,)


def test_the_guides_7900xtx_configuration_is_read_in_full():
    config = resolved("config-7900xtx.json").training
    assert (config.max_train_steps, config.num_train_epochs, config.train_batch_size) == (200, 0, 2)
    assert (config.learning_rate, config.lr_warmup_steps, config.lr_scheduler) == (6e-5, 50, "constant_with_warmup")
    assert (config.max_grad_norm, config.grad_clip_method, config.optimizer) == (0.1, "norm", "adamw_bf16")
    assert (config.model_family, config.model_flavour, config.model_type) == ("ltxvideo2", "dev", "lora")
    assert (config.checkpoint_step_interval, config.seed, config.validation_seed) == (100, 42, 42)
    assert config.output_dir == "output/examples/ltxvideo2-19b-t2v.peft-lora"
    assert (config.resolution, config.disable_benchmark) == (480.0, True)
    assert (config.validation_disable, config.validation_guidance, config.validation_num_inference_steps) == (
        True,
        5,
        40,
    )
    assert (config.validation_num_video_frames, config.validation_resolution) == (81, [(768, 512)])
    assert config.validation_prompt == "🟫 is holding a sign that says hello world from ltxvideo2"
    assert config.hub_model_id == "simpletuner-ltxvideo2-19b-t2v-lora-test"
    assert config.dynamo_mode is None and config.report_to == "none"


def test_the_guides_dataset_file_is_found_in_the_workspace(tmp_path):
    """The guide's config names config/ltx2/multidatabackend.json; config/lycoris_config.json may be missing."""
    target = tmp_path / "config" / "ltx2" / "multidatabackend.json"
    target.parent.mkdir(parents=True)
    target.write_bytes((GUIDE / "multidatabackend.json").read_bytes())
    config = load("config-7900xtx.json")
    assert resolve(config, workspace=tmp_path).digest == resolve(config, load("multidatabackend.json")).digest


def test_the_guides_flags():
    """The guide spells these as flags."""
    flags = [
        "--vae_enable_patch_conv=true",
        "--vae_enable_temporal_roll=true",
        "--vae_enable_tiling=true",
        "--enable_group_offload",
    ]
    config = resolve({}, load("multidatabackend.json"), flags=flags).training
    assert config.vae_enable_patch_conv and config.vae_enable_temporal_roll and config.vae_enable_tiling
    assert config.enable_group_offload
