"""The keys of datasets that lie elsewhere: clips in an object store and on a Hub, both over real HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import object_store
from cache_bench import Bench
from hub_server import Hub
from ltx2_job.errors import AuthError, ConfigError, NoInputError
from ltx2_job.workspace import read_json


@pytest.fixture(scope="module")
def stores() -> Iterator[list[object_store.ObjectStore]]:
    """Two object stores."""
    with object_store.serve() as one, object_store.serve() as other:
        yield [one, other]


@pytest.fixture
def store(stores: list[object_store.ObjectStore], bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The first of them, empty, with keys for it; the bench's dataset lies in its bucket `footage`."""
    for one in stores:
        one.clear()
    for name, value in object_store.ENVIRON.items():
        monkeypatch.setenv(name, value)
    move(bench, type="aws", aws_bucket_name="footage", aws_endpoint_url=stores[0].url)
    return stores[0]


@pytest.fixture
def hub(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub; the bench's dataset lies in its repository me/footage."""
    served = Hub()
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    move(bench, type="huggingface", dataset_name="me/footage")
    yield served
    served.close()


def move(bench: Bench, **place: Any) -> None:
    """Let the bench's dataset lie elsewhere."""
    bench.dataset.pop("instance_data_dir")
    bench.dataset.update(place)


def files(bench: Bench, *names: str, under: str = "") -> dict[str, bytes]:
    """Clips with captions by their path at a source; each is another clip."""
    made = {}
    for name in names:
        path = bench.clip(name, level=0.1 + len(name) / 20)
        for one in (path, path.with_suffix(".txt")):
            made[f"{under}{one.name}"] = one.read_bytes()
            one.unlink()
    return made


def seen(bench: Bench) -> list[str]:
    """The ids of the samples of a run."""
    return [sample.id for sample in bench.run()[0].samples]


@pytest.mark.witness("dataset.type", "aws")
def test_type_aws(bench: Bench, store: object_store.ObjectStore) -> None:
    """Clips and captions lie on the volume afterwards, and are used as those of a folder are."""
    store.put("footage", files(bench, "a", under="deep/"))
    assert seen(bench) == ["clips/deep/a.mp4"]
    assert bench.calls.count["video"] == 1 and "a fox" in bench.calls.texts
    bench.dataset["type"] = "local"
    with pytest.raises(ConfigError, match=r"datasets\[0\].instance_data_dir: is required"):
        seen(bench)


@pytest.mark.witness("dataset.aws_bucket_name")
def test_aws_bucket_name(bench: Bench, store: object_store.ObjectStore) -> None:
    store.put("footage", files(bench, "a"))
    store.put("other-footage", files(bench, "bb"))
    for bucket, name in (("footage", "a"), ("other-footage", "bb")):
        bench.dataset["aws_bucket_name"] = bucket
        assert seen(bench) == [f"clips/{name}.mp4"]
    bench.dataset["aws_bucket_name"] = "no-such"
    with pytest.raises(ConfigError, match=r"datasets\[clips\].aws_bucket_name: there is no bucket no-such on http"):
        seen(bench)


@pytest.mark.witness("dataset.aws_data_prefix")
def test_aws_data_prefix(bench: Bench, store: object_store.ObjectStore) -> None:
    """A folder, not the beginning of a name: `fox` does not take what lies in `foxes`."""
    store.put("footage", files(bench, "a", under="fox/") | files(bench, "bb", under="foxes/2026/"))
    for prefix, names in (("fox", ["a"]), ("fox/", ["a"]), ("foxes", ["2026/bb"]), ("", ["fox/a", "foxes/2026/bb"])):
        bench.dataset["aws_data_prefix"] = prefix
        assert seen(bench) == [f"clips/{name}.mp4" for name in names]
    bench.dataset["aws_data_prefix"] = "fo"
    with pytest.raises(NoInputError, match="s3://footage/fo/: there is no video file there yet"):
        seen(bench)


@pytest.mark.witness("dataset.aws_endpoint_url")
def test_aws_endpoint_url(
    bench: Bench, store: object_store.ObjectStore, stores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dataset's own, or that of the environment: two servers of the same buckets, of which one is asked."""
    store.put("footage", files(bench, "a"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", stores[1].url)
    assert seen(bench) == ["clips/a.mp4"] and store.fetched() and not stores[1].requests
    del bench.dataset["aws_endpoint_url"]
    store.clear()
    store.put("footage", files(bench, "bb"))
    assert seen(bench) == ["clips/bb.mp4"] and stores[1].fetched() and not store.requests


@pytest.mark.witness("dataset.aws_region_name")
def test_aws_region_name(bench: Bench, store: object_store.ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in the signature of each request; the dataset's own, or that of the environment."""
    store.put("footage", files(bench, "a"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    seen(bench)
    assert store.regions() == {"eu-west-1"}
    bench.dataset["aws_region_name"] = "sa-east-1"
    seen(bench)
    assert store.regions() == {"sa-east-1"}


@pytest.mark.parametrize("key", ["aws_access_key_id", "aws_secret_access_key"])
def test_keys_of_a_store_are_refused_without_being_shown(bench: Bench, key: str) -> None:
    bench.dataset[key] = "AKIASECRET"
    with pytest.raises(ConfigError) as error:
        seen(bench)
    assert str(error.value).startswith(f"datasets[0].{key}: known, not offered")
    assert "spec.secrets.objectStore" in str(error.value) and "AWS_ACCESS_KEY_ID" in str(error.value)
    assert "AKIASECRET" not in str(error.value)


def test_keys_come_from_the_chain_of_the_sdk(
    bench: Bench, store: object_store.ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment, a profile of a file; without any the store is asked unsigned, as a public one is."""
    store.put("footage", files(bench, "a"))
    seen(bench)
    assert store.signers() == {object_store.ENVIRON["AWS_ACCESS_KEY_ID"]}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    seen(bench)
    assert store.signers() == {None}
    store.faults.append((403, object_store.ERROR.format("AccessDenied")))
    with pytest.raises(AuthError, match=r"no keys of an object store were found here; give keys .* AWS_ACCESS_KEY_ID"):
        seen(bench)
    (tmp_path / "credentials").write_text("[mine]\naws_access_key_id = OFAFILE\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    store.signers()
    seen(bench)
    assert store.signers() == {"OFAFILE"}
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match=r"AWS_PROFILE: The config profile \(nobody\) could not be found"):
        seen(bench)


@pytest.mark.witness("dataset.type", "huggingface")
def test_type_huggingface(bench: Bench, hub: Hub) -> None:
    hub.add("datasets/me/footage", files(bench, "a", under="deep/") | {"README.md": b"# footage"})
    assert seen(bench) == ["clips/deep/a.mp4"]
    assert "a fox" in bench.calls.texts and not hub.asked("README.md")


@pytest.mark.witness("dataset.dataset_name")
def test_dataset_name(bench: Bench, hub: Hub) -> None:
    hub.add("datasets/me/footage", files(bench, "a"))
    hub.add("datasets/me/more", files(bench, "bb"))
    for name, clip in (("me/footage", "a"), ("me/more", "bb")):
        bench.dataset["dataset_name"] = name
        assert seen(bench) == [f"clips/{clip}.mp4"]
    bench.dataset["dataset_name"] = "me/none"
    with pytest.raises(AuthError, match=r"me/none on http.* cannot be read without a token"):
        seen(bench)


@pytest.mark.witness("dataset.revision")
def test_revision(bench: Bench, hub: Hub) -> None:
    """A branch or a commit; the run notes the commit."""
    old = hub.add("datasets/me/footage", files(bench, "a"))
    new = hub.add("datasets/me/footage", files(bench, "bb"))
    for revision, commit, name in ((old, old, "a"), ("main", new, "bb"), (new, new, "bb")):
        bench.dataset["revision"] = revision
        assert seen(bench) == [f"clips/{name}.mp4"]
        assert commit in read_json(bench.workspace.root / "runs/fox/sources.json").values()
    bench.dataset["revision"] = "nightly"
    with pytest.raises(ConfigError, match=r"datasets\[clips\].*me/footage has no revision 'nightly'"):
        seen(bench)


@pytest.mark.witness("dataset.data_prefix")
def test_data_prefix(bench: Bench, hub: Hub) -> None:
    hub.add("datasets/me/footage", files(bench, "a", under="fox/") | files(bench, "bb", under="foxes/"))
    for prefix, names in (("fox", ["a"]), ("foxes/", ["bb"]), ("", ["fox/a", "foxes/bb"])):
        bench.dataset["data_prefix"] = prefix
        assert seen(bench) == [f"clips/{name}.mp4" for name in names]
    bench.dataset["data_prefix"] = "wolves"
    with pytest.raises(NoInputError, match="hf://datasets/me/footage/wolves/: there is no video file there yet"):
        seen(bench)
