"""Downloads against a Hub over real HTTP: what is asked, what lies on disk afterwards, and every way to fail."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hub_server import TOKEN
from ltx2_job import exitcodes
from ltx2_job.errors import AuthError, ConfigError, NoInputError, Stopped, StorageError, UnavailableError

from .conftest import DEV, NEW, SIZE, gemma, noise, published

WANTED = {DEV, *gemma()}
SCRIPT = """
import sys
from pathlib import Path
from ltx2_job.config import resolve
from ltx2_job.hub.obtain import obtain
from ltx2_job.hub.snapshot import Snapshots
from ltx2_job.reporter import Reporter
from ltx2_job.workspace import Workspace

class Shown(Reporter):
    def info(self, message):
        print(message, flush=True)

clips = [{"id": "c", "type": "local", "instance_data_dir": "c", "caption_strategy": "textfile"}]
config = resolve({"max_train_steps": 1}, clips).training
place = Workspace(Path(sys.argv[1]))
snapshots = Snapshots(place, place.run(sys.argv[2]))
print(obtain(snapshots, config, Shown(), lambda: None).model, flush=True)
snapshots.record(config)
"""


def held(folder):
    """Every file below a folder, relative, but for locks."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def process(place, hub, run="fox"):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(place.root), run], env=place.environ(hub), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


def test_a_fresh_download_takes_one_combined_file_and_the_text_encoder(hub, place):
    # Catches: whole diffusers folders, a second set of the text encoder's weights, a token sent to the storage.
    os.environ["HF_TOKEN"] = TOKEN
    try:
        files = place.fetch()
    finally:
        del os.environ["HF_TOKEN"]
    commit = hub.repos["Lightricks/LTX-2"].names["main"]
    folder = place.home / commit[:12]
    assert files.model == folder / DEV and files.gemma == folder
    assert held(place.workspace.models) == {
        "Lightricks--LTX-2/revisions.json",
        f"Lightricks--LTX-2/{commit[:12]}/repository.json",
        *(f"Lightricks--LTX-2/{commit[:12]}/{name}" for name in WANTED),
    }
    for name, data in published().items():
        assert not (folder / name).exists() or (folder / name).read_bytes() == data
    assert set(hub.sent) == WANTED
    assert hub.sent[DEV] == SIZE
    assert hub.leaked == []
    recorded = (place.root / "runs/fox/model.json").read_text()
    assert f'"Lightricks/LTX-2": "{commit}"' in recorded and f"models/Lightricks--LTX-2/{commit[:12]}/{DEV}" in recorded
    assert place.told.states == ["downloading", "loading"]
    total = sum(len(published()[name]) for name in WANTED)
    assert place.told.transfers[-1][1:] == (total, total)


def test_the_second_time_nobody_is_asked(hub, place, monkeypatch):
    first = place.fetch()
    hub.close()
    asked = len(hub.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert place.fetch() == place.fetch(run="another") == first == place.snapshots().find(place.config())
    assert place.snapshots(None).find_model(place.config()) == first.model
    assert len(hub.requests) == asked


def test_a_cut_is_resumed_where_it_was_cut(hub, place):
    # Catches: beginning anew, a cut file taken for a whole one, bytes lost in a buffer.
    hub.cuts[DEV] = [1_000_000, 700_000]
    files = place.fetch()
    assert files.model.read_bytes() == published()[DEV]
    assert hub.sent[DEV] == SIZE
    ranges = [wanted for method, path, wanted, _ in hub.asked(DEV) if "/resolve/" not in path]
    assert ranges == [None, "bytes=1000000-", "bytes=1700000-"]
    assert [line for line in place.told.lines if "try 2 of 6" in line]


def test_a_server_without_ranges_is_read_from_the_start(hub, place):
    hub.ranges, hub.cuts[DEV] = False, [1_000_000]
    assert place.fetch().model.read_bytes() == published()[DEV]
    assert hub.sent[DEV] == SIZE + 1_000_000
    assert place.told.transfers[-1][1] == place.told.transfers[-1][2]


def test_six_cuts_without_a_new_byte_end_the_attempt_and_keep_the_rest(hub, place):
    hub.cuts[DEV] = [1_000_000] + [0] * 6
    with pytest.raises(UnavailableError, match=r"not reachable: ltx-2-19b-dev.*; what has been fetched is kept"):
        place.fetch()
    assert [path.stat().st_size for path in place.home.rglob("*.partial")] == [1_000_000]
    assert place.fetch().model.read_bytes() == published()[DEV]
    assert hub.sent[DEV] == SIZE


def test_a_killed_process_is_resumed_by_the_next(hub, place):
    hub.hold[DEV] = 1_500_000
    one = process(place, hub)
    assert hub.held.wait(60)
    partial = next(iter(place.home.glob(f"*/{DEV}.partial")), None)
    while partial is None or partial.stat().st_size < 1_500_000:
        assert one.poll() is None
        partial = next(iter(place.home.glob(f"*/{DEV}.partial")), None)
    one.send_signal(signal.SIGKILL)
    one.communicate()
    hub.go.set()
    assert not (partial.parent / DEV).exists()
    before = hub.sent[DEV]
    two = process(place, hub)
    out, _ = two.communicate(timeout=60)
    assert two.returncode == 0, out
    assert "1.4 MiB of them here from before" in out
    assert (partial.parent / DEV).read_bytes() == published()[DEV]
    assert [r for _, path, r, _ in hub.asked(DEV) if "/resolve/" not in path] == [None, "bytes=1500000-"]
    assert before >= 1_500_000
    assert not list(place.home.rglob("*.partial"))


def test_two_processes_at_once_fetch_once(hub, place):
    # Catches: both writing one file, both fetching, the second failing because the first is at work.
    hub.hold[DEV] = 1_500_000
    one = process(place, hub)
    assert hub.held.wait(60)
    two = process(place, hub, "vixen")
    first = two.stdout.readline()
    hub.go.set()
    out, rest = one.communicate(timeout=60)[0], two.communicate(timeout=60)[0]
    assert (one.returncode, two.returncode) == (0, 0), (out, first, rest)
    assert "another process downloads; waiting for it" in first
    assert out.splitlines()[-1] == rest.splitlines()[-1]
    assert {name: count for name, count in hub.sent.items() if count != len(published()[name])} == {}
    assert (place.root / "runs/vixen/model.json").exists()


def test_a_volume_without_locks_is_written_all_the_same(hub, place, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    assert place.fetch().model.read_bytes() == published()[DEV]


def test_told_to_stop_it_stops_within_the_file_and_goes_on_later(hub, place):
    def check():
        if hub.sent[DEV] or (place.told.transfers and place.told.transfers[-1][0] == DEV):
            raise Stopped("told to stop")

    with pytest.raises(Stopped):
        place.fetch(check)
    assert list(place.home.rglob(DEV)) == []
    assert place.fetch().model.read_bytes() == published()[DEV]


@pytest.mark.parametrize(
    ("token", "repo", "words"),
    [
        (None, {"gated": True}, "is gated: accept its licence with an account at {url}/Lightricks/LTX-2, then put a"),
        ("hf_stranger", {"gated": True}, "is gated: accept its licence with your token's account at {url}/Lightricks"),
        ("hf_with blank", {}, "HF_TOKEN holds no token: there are blanks or other characters in it"),
        ("hf_wrong", {}, "is not open to your token, which may be wrong, expired"),
        (None, {"private": True}, "cannot be read without a token: the name is wrong, or it is private"),
    ],
)
def test_without_the_right_token_it_says_what_to_do(hub, place, monkeypatch, token, repo, words):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.add("Lightricks/LTX-2", published(), **repo)
    with pytest.raises(AuthError) as caught:
        place.fetch()
    assert caught.value.exit_code == exitcodes.AUTH == 77
    assert words.format(url=hub.url) in str(caught.value)
    assert "spec.secrets.hubToken" in str(caught.value) or token in ("hf_stranger", "hf_with blank")
    assert not hub.sent
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert place.fetch().model.read_bytes() == published()[DEV]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"pretrained_model_name_or_path": "own/tune"},
         "own/tune has no ltx-2-19b-dev.safetensors; it has a.safetensors, b.safetensors; name one in ltx2_combined"),
        ({"pretrained_model_name_or_path": "own/folders"}, "has no ltx-2-19b-dev.safetensors; it has no combined file"),
        ({"pretrained_model_name_or_path": "own/twice"}, "has 2 files ltx-2-19b-dev.safetensors; it has one/ltx-2-19b"),
        ({"ltx2_combined_filename": "x.safetensors"}, "LTX-2 has no x.safetensors; it has ltx-2-19b-dev-fp8"),
        ({"pretrained_model_name_or_path": "Lightricks/LTX-2@v9"}, "Lightricks/LTX-2 has no revision 'v9'"),
        ({"pretrained_gemma_model_name_or_path": "own/tune"}, "own/tune holds no Gemma 3"),
        ({"pretrained_gemma_model_name_or_path": "own/gemmas"}, "own/gemmas has 2 sets of weights"),
    ],
)  # fmt: skip
def test_a_repository_without_the_file_is_a_mistake_of_the_configuration(hub, place, config, words):
    hub.add("own/tune", {"a.safetensors": noise(1, 9000), "b.safetensors": noise(2, 9000), "README.md": b"x"})
    hub.add("own/folders", {"transformer/model.safetensors": noise(1, 9000)})
    hub.add("own/twice", {f"one/{DEV}": noise(1, 9000), f"two/{DEV}": noise(2, 9000)})
    hub.add("own/gemmas", {"config.json": b"{}", "tokenizer_config.json": b"{}",
                           "a.safetensors": noise(1, 9000), "b.safetensors": noise(1, 9000)})  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        place.fetch(**config)
    assert caught.value.exit_code == 78
    assert words in str(caught.value)
    assert not hub.sent


def test_a_repository_that_is_nowhere(hub, place, monkeypatch):
    with pytest.raises(AuthError, match="the name is wrong, or it is private"):  # the Hub does not tell strangers
        place.fetch(pretrained_model_name_or_path="own/nothing")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match="own/nothing is neither a path of the workspace nor a repository on http"):
        place.fetch(pretrained_model_name_or_path="own/nothing")
    assert not place.workspace.models.exists()


def test_a_file_that_is_listed_and_not_there(hub, place):
    commit = hub.repos["Lightricks/LTX-2"].names["main"]
    place.fetch()
    shutil.rmtree(place.home / commit[:12] / "tokenizer")
    del hub.repos["Lightricks/LTX-2"].commits[commit]["tokenizer/tokenizer.json"]
    with pytest.raises(ConfigError, match=r"has no file 'tokenizer/tokenizer\.json' on http"):
        place.fetch()


def test_more_than_the_disk_has_is_refused_before_the_first_byte(hub, place):
    hub.repos["Lightricks/LTX-2"].listed[DEV] = {"size": 10 << 50}
    with pytest.raises(StorageError, match=r"the download needs 10485760\.\d GiB more, \d+\.\d GiB are free; grow the"):
        place.fetch()
    assert StorageError.exit_code == 73
    assert not hub.sent


def test_room_for_the_download_alone_is_not_enough(hub, place, monkeypatch):
    # Catches a refusal that says it needs less than there is.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4 << 20))
    with pytest.raises(StorageError, match=r"needs 3\.0 MiB more and leaves 3\.0 MiB for the run, 4\.0 MiB are free"):
        place.fetch()
    assert not hub.sent


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_real_small_disk(hub, place, monkeypatch):
    models = place.workspace.models
    models.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(models)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no tmpfs here: {done.stderr.decode().strip()}")
    try:
        with pytest.raises(StorageError, match=r"the download needs 3\.0 MiB more, 2\.0 MiB are free"):
            place.fetch()
        assert not hub.sent
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))  # another run is quicker
        with pytest.raises(StorageError, match="the download needs"):
            place.fetch()
        assert hub.sent[DEV] > 1_000_000
        assert not list(place.home.rglob(DEV))
        monkeypatch.undo()
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        subprocess.run(["mount", "-o", "remount,size=64m", str(models)], check=True)  # the claim has grown
        sent = hub.sent[DEV]
        kept = next(models.rglob("*.partial")).stat().st_size
        assert place.fetch().model.read_bytes() == published()[DEV]
        assert hub.sent[DEV] - sent == SIZE - kept
    finally:
        subprocess.run(["umount", str(models)], check=True)


@pytest.mark.parametrize("name", [DEV, "tokenizer/tokenizer_config.json"])
def test_wrong_bytes_are_named_and_removed(hub, place, name):
    # One file is checked by its sha256, the other by its blob's digest in git.
    hub.corrupt.add(name)
    with pytest.raises(UnavailableError, match=f"{name} came with other bytes than the Hub lists"):
        place.fetch()
    assert not [path for path in held(place.home) if name in path]
    hub.corrupt.clear()
    assert (place.fetch().gemma / name).read_bytes() == published()[name]


def test_too_many_bytes_are_refused(hub, place):
    hub.repos["Lightricks/LTX-2"].listed[DEV] = {"size": SIZE - 1}
    with pytest.raises(UnavailableError, match="more bytes than the 2999999 that are listed"):
        place.fetch()
    assert not list(place.home.rglob(DEV))


def test_no_server(hub, place):
    hub.close()
    with pytest.raises(UnavailableError, match=r"not reachable: http://127.0.0.1:\d+: .*refused") as caught:
        place.fetch()
    assert caught.value.exit_code == exitcodes.UNAVAILABLE == 69


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again(hub, place, status):
    hub.faults = [status, status]
    assert place.fetch().model.read_bytes() == published()[DEV]
    assert [line for line in place.told.lines if f"answers {status}; try 3 of 6" in line]


def test_a_server_that_is_no_hub(hub, place, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "no address")
    with pytest.raises(ConfigError, match="HF_ENDPOINT: 'no address' is no address"):
        place.fetch()


def test_names_that_lead_out_of_the_folder_are_refused(hub, place):
    hub.add("Lightricks/LTX-2", published() | {f"../../../{DEV}": noise(3, 9000)})
    with pytest.raises(UnavailableError, match=r"does not answer for .* as a Hub does \(a file is called"):
        place.fetch()


def test_offline_without_the_files(hub, place, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NoInputError, match="Lightricks/LTX-2 is not in models/, and HF_HUB_OFFLINE forbids to ask"):
        place.fetch()
    assert hub.requests == [] and not place.workspace.models.exists()


def test_main_is_asked_for_once_and_a_pinned_commit_stays(hub, place):
    first = hub.repos["Lightricks/LTX-2"].names["main"]
    place.fetch()
    second = hub.add("Lightricks/LTX-2", published(2))
    assert place.fetch(run="later").model.read_bytes() == published(1)[DEV]  # main keeps its meaning in this workspace
    name = f"Lightricks/LTX-2@{second}"
    assert place.fetch(run="new", pretrained_model_name_or_path=name).model.read_bytes() == published(2)[DEV]
    pinned = f"Lightricks/LTX-2@{first}"
    assert place.fetch(run="old", pretrained_model_name_or_path=pinned).model.read_bytes() == published(1)[DEV]
    (place.home / "revisions.json").unlink()
    # The run that has begun keeps its commit, a new one gets what main is now.
    assert place.fetch(run="fox").model.read_bytes() == published(1)[DEV]
    assert place.fetch(run="newest").model.read_bytes() == published(2)[DEV]
    # The commit that one run keeps to, fetched anew, is not what main means to the others.
    shutil.rmtree(place.home / first[:12])
    assert place.fetch(run="fox").model.read_bytes() == published(1)[DEV]
    assert place.fetch(run="last").model.read_bytes() == published(2)[DEV]


def test_the_flavour_names_the_repository_and_the_file(hub, place):
    hub.add("Lightricks/LTX-2.3", {NEW: noise(5), "ltx-2.3-22b-distilled.safetensors": noise(6)})
    files = place.fetch(model_flavour="2.3-dev")
    assert files.model.read_bytes() == noise(5)
    assert files.model.parent.parent.name == "Lightricks--LTX-2.3"
    assert files.gemma.parent.name == "Lightricks--LTX-2"  # the text encoder of both generations lies there
    assert place.fetch(model_flavour="2.3-distilled").model.read_bytes() == noise(6)
    assert DEV not in hub.sent


def test_a_repository_of_ones_own_and_its_other_file_name(hub, place):
    hub.add("own/tune", {"mine.safetensors": noise(8), DEV: noise(9), **gemma(seed=70)})
    assert place.fetch(pretrained_model_name_or_path="own/tune").model.read_bytes() == noise(9)
    files = place.fetch(pretrained_model_name_or_path="own/tune", ltx2_checkpoint_filename="mine.safetensors")
    assert files.model.read_bytes() == noise(8)
    assert files.gemma.parent.name == "own--tune"


def test_a_text_encoder_of_its_own_beside_a_model_of_the_workspace(hub, place):
    hub.add("google/gemma-3-12b-it", gemma("", ""))
    (place.root / "mine.safetensors").write_bytes(b"model")
    keys = {"pretrained_model_name_or_path": "mine.safetensors"}
    files = place.fetch(**keys, pretrained_gemma_model_name_or_path="google/gemma-3-12b-it")
    assert files.model == place.root / "mine.safetensors"
    assert held(files.gemma) == {*gemma("", ""), "repository.json"}
    assert not hub.asked("Lightricks")


@pytest.mark.parametrize("name", ["models/none.safetensors", "./nothing", "/nowhere/model"])
def test_a_path_that_is_missing_is_never_asked_for(hub, place, name):
    with pytest.raises(NoInputError, match="the checkpoint is not there"):
        place.fetch(pretrained_model_name_or_path=name)
    assert hub.requests == []


def test_an_existing_folder_wins_over_a_repository_of_its_name(hub, place):
    (place.root / "Lightricks/LTX-2").mkdir(parents=True)
    assert place.fetch().model == place.root / "Lightricks/LTX-2"
    assert hub.requests == []
