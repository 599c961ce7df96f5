"""What comes out: the dump, its digest, and that one leads to the other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ltx2_job.config import Correction, DatasetConfig, TrainingConfig, Unsupported, resolve

JOB = Path(__file__).resolve().parents[3] / "job"
CLIPS = {"id": "clips", "instance_data_dir": "datasets/videos"}
RICH = {
    "frame_rate": 24,
    "seed": "7",
    "learning_rate": "6e-5",
    "num_train_epochs": 2,
    "lr_warmup_steps": 10,
    "lr_scheduler": "constant",
    "base_model_precision": "int8-quanto",
    "validation_resolution": "720x1280,512x768",
    "validation_num_video_frames": 62,
    "validation_guidance": 1,
    "trigger_words": "fox,snow",
    "tread_config": {"routes": [{"selection_ratio": 0.5}]},
    "aspect_bucket_alignment": 64,
}
SETS = [
    {**CLIPS, "cache_dir_vae": "c/{model_family}", "video": {"num_frames": 61}, "audio": {"channels": 1}},
    {"id": "held", "dataset_type": "eval", "instance_data_dir": "datasets/held", "repeats": "3"},
    {"id": "off", "disabled": True},
    {"id": "text", "dataset_type": "text_embeds", "default": True, "cache_dir": "cache/text"},
]


@pytest.mark.parametrize(("config", "datasets"), [({}, [CLIPS]), (RICH, SETS)])
def test_the_dump_leads_to_the_same_with_nothing_left_to_correct(config, datasets):
    first = resolve(config, datasets)
    dump = json.loads(json.dumps(first.dump()))
    again = resolve(dump["config"], dump["datasets"])
    assert again.corrections == ()
    assert again.training == first.training and again.datasets == first.datasets
    assert again.digest == first.digest and again.dump() == first.dump()
    assert [item.field for item in again.unsupported] == [item.field for item in first.unsupported]


def test_the_dump_is_complete():
    dump = resolve(RICH, SETS).dump()
    assert set(dump) == {"config", "datasets"}
    assert set(dump["config"]) == set(TrainingConfig.model_fields)
    assert [item["id"] for item in dump["datasets"]] == ["clips", "held", "text"]
    assert all(set(item) == set(DatasetConfig.model_fields) for item in dump["datasets"])
    assert dump["config"]["validation_resolution"] == [[704, 1280], [512, 768]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"validation_guidance": 5}, {"validation_guidance": 5.0}),
        ({"validation_guidance": 5}, {"validation_guidance": "5"}),
        ({"learning_rate": 1e-4}, {"learning_rate": "1e-4"}),
        ({"learning_rate": 1e-4}, {}),
        ({"validation_disable": True}, {"validation_disable": "true"}),
        ({"framerate": 24}, {"frame_rate": 24}),
        ({"--seed": 7}, {"seed": "7"}),
        ({"validation_num_video_frames": 61}, {"validation_num_video_frames": 57}),
        ({"tread_config": {"a": 5, "b": [1.0]}}, {"tread_config": {"b": [1], "a": 5.0}}),
        ({"dynamo_mode": "", "seed": None}, {}),
    ],
)
def test_the_digest_knows_no_spelling(one, other):
    assert resolve(one, [CLIPS]).digest == resolve(other, [CLIPS]).digest


def test_the_digest_of_datasets_knows_no_spelling():
    one = {**CLIPS, "resolution": 512, "video": {"num_frames": 61, "frame_rate": 25}}
    other = {**CLIPS, "resolution": "512.0", "video": {"num_frames": 57, "frame_rate": 25.0}, "repeats": 0}
    assert resolve({}, [one]).digest == resolve({}, [other]).digest


@pytest.mark.parametrize(
    "config", [{"seed": 43}, {"learning_rate": 2e-4}, {"validation_prompt": "a fox"}, {"output_dir": "out"}]
)
def test_the_digest_sees_every_value(config):
    assert resolve(config, [CLIPS]).digest != resolve({}, [CLIPS]).digest


def test_the_digest_sees_datasets_and_their_order():
    second = {**CLIPS, "id": "second"}
    digests = {
        resolve({}, datasets).digest
        for datasets in ([CLIPS], [{**CLIPS, "repeats": 1}], [CLIPS, second], [second, CLIPS], [second])
    }
    assert len(digests) == 5


def test_the_digest_is_stable_between_processes():
    """Catches an order of sets or a hash seed inside the digest."""
    script = (
        "import json, sys; from ltx2_job.config import resolve; "
        "config, datasets = json.load(sys.stdin); print(resolve(config, datasets).digest)"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", script],
            input=json.dumps([RICH, SETS]),
            env={"PYTHONPATH": str(JOB), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {resolve(RICH, SETS).digest} and len(seen.pop()) == 64


def test_what_the_caller_passes_is_not_changed():
    config, datasets = json.loads(json.dumps(RICH)), json.loads(json.dumps(SETS))
    resolve(config, datasets)
    assert config == RICH and datasets == SETS


def test_records_read_as_sentences():
    assert str(Correction("frames", 62, 57, "8k+1")) == "frames 62 → 57 (8k+1)"
    assert str(Unsupported("ramtorch", True, "later")) == "ramtorch: not supported yet: True (later)"


def test_no_heavy_library_is_imported():
    """The operator imports this room: torch, numpy and the like must not come with it."""
    script = (
        "import sys; import ltx2_job.config, ltx2_job.config.reference; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'torch', 'numpy', 'diffusers', 'transformers', 'peft', 'accelerate', 'safetensors', 'av', 'kubernetes'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(JOB)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_defaults_as_decided():
    """The defaults that design decides, one by one, so that none moves unseen."""
    config = TrainingConfig()
    assert (config.model_type, config.model_family, config.model_flavour) == ("lora", "ltxvideo2", "dev")
    assert (config.lora_type, config.lora_rank, config.lora_alpha, config.lora_dropout) == ("standard", 32, None, 0.0)
    assert (config.train_batch_size, config.gradient_accumulation_steps) == (1, 1)
    assert (config.learning_rate, config.lr_warmup_steps, config.lr_scheduler) == (1e-4, 0, "constant")
    assert (config.optimizer, config.adam_weight_decay, config.adam_beta1, config.adam_beta2, config.adam_epsilon) == (
        "adamw", 0.01, 0.9, 0.999, 1e-8,
    )  # fmt: skip
    assert (config.max_grad_norm, config.grad_clip_method) == (1.0, "norm")
    assert (config.max_train_steps, config.num_train_epochs, config.seed) == (2000, 0, 42)
    assert (config.mixed_precision, config.base_model_precision) == ("bf16", "no_change")
    assert config.gradient_checkpointing is None and config.flow_schedule_shift is None
    assert (config.audio_loss_weight, config.ltx2_first_frame_conditioning_probability) == (1.0, 0.1)
    assert (config.framerate, config.resolution, config.resolution_type) == (25.0, 512.0, "pixel_area")
    assert (config.checkpoint_step_interval, config.checkpoints_total_limit) == (500, 5)
    assert (config.resume_from_checkpoint, config.output_dir, config.report_to) == ("latest", None, "none")
    assert (config.validation_resolution, config.validation_num_video_frames) == ([(512, 768)], 49)
    assert (config.validation_num_inference_steps, config.validation_guidance) == (40, 5.0)
    assert (config.ltx2_validation_audio_guidance, config.validation_seed) == (7.0, 42)
    assert (config.validation_disable, config.disable_benchmark, config.validation_prompt) == (False, False, None)
    dataset = DatasetConfig(id="a")
    assert (dataset.video.num_frames, dataset.video.min_frames, dataset.video.frame_rate) == (49, 49, None)
    assert (dataset.audio.auto_split, dataset.audio.train_silence) == (True, False)
    assert (dataset.repeats, dataset.probability) == (0, 1.0)
