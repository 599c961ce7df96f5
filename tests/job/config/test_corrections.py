"""Each correction: what is changed, what is said about it, and what is left alone."""

import pytest

from ltx2_job.config import resolve

CLIPS = {"id": "clips", "instance_data_dir": "datasets/videos"}


def corrected(config=None, **dataset):
    found = resolve(config or {}, [{**CLIPS, **dataset}])
    return found, [(item.field, item.old, item.new) for item in found.corrections]


@pytest.mark.parametrize(("written", "used"), [(61, 57), (62, 57), (48, 41), (125, 121), (2, 1), (8, 1), ("61", 57)])
def test_validation_frames_go_down(written, used):
    found, said = corrected({"validation_num_video_frames": written})
    assert found.training.validation_num_video_frames == used
    assert said == [("validation_num_video_frames", int(written), used)]
    assert str(found.corrections[0]) == f"validation_num_video_frames {written} → {used} (8k+1)"


@pytest.mark.parametrize("frames", [1, 9, 17, 33, 49, 81, 97, 121, 161])
def test_frames_on_the_grid_stay(frames):
    found, said = corrected({"validation_num_video_frames": frames}, video={"num_frames": frames})
    assert found.training.validation_num_video_frames == frames and found.datasets[0].video.num_frames == frames
    assert said == []


def test_frames_of_a_dataset_go_down_one_warning_each():
    found, said = corrected(video={"num_frames": 61, "min_frames": 30, "max_frames": 100})
    video = found.datasets[0].video
    assert (video.num_frames, video.min_frames, video.max_frames) == (57, 25, 97)
    assert said == [
        ("datasets[0].video.num_frames", 61, 57),
        ("datasets[0].video.min_frames", 30, 25),
        ("datasets[0].video.max_frames", 100, 97),
    ]


def test_a_default_is_adapted_without_a_warning():
    """min_frames follows num_frames; nobody wrote it, so nobody is warned about it."""
    found, said = corrected(video={"num_frames": 62})
    assert (found.datasets[0].video.num_frames, found.datasets[0].video.min_frames) == (57, 57)
    assert said == [("datasets[0].video.num_frames", 62, 57)]


@pytest.mark.parametrize(
    ("written", "used", "said"),
    [
        ("720x1280", [(704, 1280)], [("720x1280", "704x1280")]),
        ("480x854", [(480, 864)], [("480x854", "480x864")]),
        ("854x480", [(864, 480)], [("854x480", "864x480")]),
        ("768x512", [(768, 512)], []),
        ("512x768", [(512, 768)], []),
        (500, [(512, 512)], [("500x500", "512x512")]),
        ("10x10", [(64, 64)], [("10x10", "64x64")]),
        ("32x96", [(64, 96)], [("32x96", "64x96")]),
        ("768x512,720x1280", [(768, 512), (704, 1280)], [("720x1280", "704x1280")]),
    ],
)
def test_sizes_go_to_the_grid_and_are_never_swapped(written, used, said):
    found, changes = corrected({"validation_resolution": written})
    assert found.training.validation_resolution == used
    assert changes == [("validation_resolution", old, new) for old, new in said]


def test_the_guides_name_of_the_frame_rate():
    found, said = corrected({"frame_rate": 24})
    assert found.training.framerate == 24.0
    assert said == [("frame_rate", 24, "framerate 24")]
    assert str(found.corrections[0]).startswith("frame_rate 24 → framerate 24 (")


def test_the_frame_rate_of_a_dataset_is_a_key_of_its_own():
    found, said = corrected(video={"frame_rate": 24})
    assert found.datasets[0].video.frame_rate == 24.0 and said == []
    assert corrected()[0].datasets[0].video.frame_rate is None


def test_aliases_of_the_guides_trainer_are_no_mistakes():
    assert corrected({"validation_steps": 5, "checkpointing_steps": 6, "save_total_limit": 7})[1] == []


@pytest.mark.parametrize(("channels", "changes"), [(1, True), ("1", True), (6, True), (2, False), ("2", False)])
def test_audio_is_stereo(channels, changes):
    found, said = corrected(audio={"channels": channels})
    assert said == ([("datasets[0].audio.channels", int(channels), 2)] if changes else [])
    assert found.datasets == corrected()[0].datasets


@pytest.mark.parametrize(
    ("rate", "changes"), [(44100, True), (48000, True), (16000, False), ("16000", False), (16000.0, False)]
)
def test_audio_is_heard_at_16_khz(rate, changes):
    found, said = corrected(audio={"sample_rate": rate})
    assert said == ([("datasets[0].audio.sample_rate", rate, 16000)] if changes else [])
    assert found.datasets == corrected()[0].datasets


def test_sound_is_on_without_an_audio_block():
    """The guide says so; its trainer wants the block."""
    assert corrected()[0].datasets[0].audio.auto_split is True
    assert corrected(audio={"auto_split": "false"})[0].datasets[0].audio.auto_split is False


@pytest.mark.parametrize("key", ["base_model_precision", "text_encoder_1_precision"])
def test_quanto_int8_runs_as_torchaos(key):
    found, said = corrected({key: "int8-quanto"})
    assert getattr(found.training, key) == "int8-torchao"
    assert said == [(key, "int8-quanto", "int8-torchao")]
    assert [(item.field, item.value) for item in found.unsupported] == [(key, "int8-torchao")]


def test_a_warm_up_needs_its_schedule():
    found, said = corrected({"lr_scheduler": "constant", "lr_warmup_steps": 10})
    assert found.training.lr_scheduler == "constant_with_warmup"
    assert said == [("lr_scheduler", "constant", "constant_with_warmup")]
    assert corrected({"lr_scheduler": "constant"})[1] == []
    assert corrected({"lr_scheduler": "cosine", "lr_warmup_steps": 10})[1] == []


def test_an_unset_schedule_follows_the_warm_up_silently():
    found, said = corrected({"lr_warmup_steps": 10})
    assert found.training.lr_scheduler == "constant_with_warmup" and said == []
    assert corrected()[0].training.lr_scheduler == "constant"


@pytest.mark.parametrize(
    ("key", "asked", "used"),
    [
        ("aspect_bucket_alignment", 64, 32),
        ("aspect_bucket_rounding", 3, 2),
        ("tokenizer_max_length", 512, 1024),
        ("prediction_type", "epsilon", "flow_matching"),
    ],
)
def test_what_the_model_fixes(key, asked, used):
    assert corrected({key: asked})[1] == [(key, asked, used)]
    assert corrected({key: used})[1] == []
    assert corrected({key: str(used)})[1] == []
    assert corrected({key: ""})[1] == []


def test_places_count_disabled_entries():
    """The place is the one in the user's list, not the one among the enabled datasets."""
    off = {"id": "off", "disabled": True}
    found = resolve({}, [off, {**CLIPS, "video": {"num_frames": 61}, "crop_style": "random"}])
    assert [item.field for item in found.corrections] == ["datasets[1].video.num_frames"]
    assert [item.field for item in found.unsupported] == ["datasets[1].crop_style"]
