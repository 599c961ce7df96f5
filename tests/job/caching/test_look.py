"""What `ltx2-job clips` says of clips is what the cache stage will find, and it writes nothing."""

import json

import pytest

from ltx2_job.caching.look import look
from ltx2_job.caching.manage import memory_path
from ltx2_job.caching.remember import Memory, content_hash, identity
from ltx2_job.caching.survey import Workers, tools
from ltx2_job.cli import main
from ltx2_job.config import resolve
from ltx2_job.data.decoder import Decoder
from ltx2_job.errors import NoInputError
from ltx2_job.workspace import Workspace
from media import write_clip

DATASET = {
    "id": "clips", "instance_data_dir": "clips", "resolution": 96, "video": {"num_frames": 17, "min_frames": 9}
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """Clips of every kind: two usable ones, one held out, and one for each reason."""
    for name, frames, more in (
        ("clips/long.mp4", 25, {}),
        ("clips/mute.mp4", 12, {"layout": None}),
        ("clips/short.mp4", 5, {}),
        ("clips/uncaptioned.mp4", 25, {}),
        ("held/one.mp4", 25, {"width": 64, "height": 96}),
    ):
        write_clip(tmp_path / name, frames=frames, **more)
        if "uncaptioned" not in name:
            (tmp_path / name).with_suffix(".txt").write_text("a fox")
    (tmp_path / "clips/broken.mp4").write_bytes(b"<html>not found</html>")
    (tmp_path / "clips/broken.txt").write_text("a fox")
    return Workspace(tmp_path)


def configuration(**changes):
    held = {**DATASET, "id": "held", "instance_data_dir": "held", "dataset_type": "eval"}
    return resolve({"max_train_steps": 5, "pretrained_model_name_or_path": "none"}, [{**DATASET, **changes}, held])


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_usable_clips_are_counted_by_bucket_and_the_others_named_with_their_reason(place):
    before = files(place.root)
    seen = look(configuration(), place)
    assert dict(seen.buckets) == {("128x64@17", 25.0): 1, ("128x64@9", 25.0): 1, ("64x128@17", 25.0): 1}
    assert (seen.used, seen.held_out, seen.with_track, seen.trained) == (3, 1, 2, 2)
    assert [(each.path, each.frames) for each in seen.skipped] == [
        ("clips/broken.mp4", None), ("clips/short.mp4", 5), ("clips/uncaptioned.mp4", 25)
    ]  # fmt: skip
    text = "\n".join(seen.lines())
    assert "6 clips: 3 usable (1 held out, 2 with a sound track), 3 would be skipped" in text
    assert "bucket 128x64@17 at 25 fps: 1 clip\n" in text
    assert "clips/short.mp4: 5 frames at 25 fps, min_frames is 9; would be skipped" in text
    assert "its caption file uncaptioned.txt is missing" in text and "cannot be read as a video" in text
    assert files(place.root) == before


def test_another_configuration_sees_other_clips(place):
    # Catches buckets that do not follow the configuration, and sound that was switched off.
    video = {"num_frames": 9, "max_frames": 9}
    seen = look(configuration(video=video, audio={"auto_split": False}, caption_strategy="filename"), place)
    assert seen.with_track == 1  # of the dataset that is held out
    assert [each.reason for each in seen.skipped if "max_frames" in each.reason]


class Unasked(Decoder):
    """A decoder that must not be asked."""

    def probe(self, path):
        raise AssertionError(f"asked about {path}")


def test_what_a_cache_stage_remembers_is_not_asked_again_and_changed_files_are(place):
    clip = place.root / "held/one.mp4"
    dump = configuration().dump()
    resolved = resolve(dump["config"], [{**dump["datasets"][1], "id": "held", "dataset_type": "video"}])
    page = {
        "width": 64, "height": 64, "aspect": "1", "frames": 33, "rate": "24", "regular": True, "seconds": "33/24",
        "origin": "0", "sound": False,
    }  # fmt: skip
    content = content_hash(clip)
    with Memory(memory_path(place), print) as memory:
        memory.set("file", identity(clip), content)
        memory.set("probe", f"{content}:{tools()}", json.dumps(page))
    before = files(place.root)
    assert list(look(resolved, place, lambda: Workers(1, Unasked)).buckets) == [("96x96@17", 24.0)]
    assert files(place.root) == before
    with clip.open("ab") as file:
        file.write(b"\0" * 8)
    assert list(look(resolved, place).buckets) == [("64x128@17", 25.0)]
    memory_path(place).write_bytes(b"no database")
    assert list(look(resolved, place).buckets) == [("64x128@17", 25.0)]


def test_the_verb_ends_with_65_if_nothing_can_be_trained_and_with_66_if_there_is_nothing(place, capsys, monkeypatch):
    config = {"max_train_steps": 5, "pretrained_model_name_or_path": "none", "data_backend_config": [DATASET]}
    file = place.root / "config.json"
    arguments = ["clips", str(file), "--workspace", str(place.root)]
    file.write_text(json.dumps(config))
    assert main(arguments) == 0
    assert "5 clips: 2 usable" in capsys.readouterr().out
    for name in ("long", "mute"):
        (place.root / f"clips/{name}.txt").unlink()
    assert main(arguments) == 65
    shown = capsys.readouterr()
    assert "5 clips: 0 usable" in shown.out
    assert (
        shown.err == "ltx2-job: no clip can be trained on; repair the clips named above or loosen what refuses them\n"
    )
    for path in (place.root / "clips").glob("*.mp4"):
        path.unlink()
    with pytest.raises(NoInputError):
        look(resolve(config, [DATASET]), place)
    assert main(arguments) == 66
    assert "no video file in it yet" in capsys.readouterr().err
