"""A workspace, a store and a Hub over real HTTP, and an update that keeps what it is told and never sleeps."""

from types import SimpleNamespace

import pytest

import object_store
from hub_server import Hub
from ltx2_job.config import resolve
from ltx2_job.fetching import Fetcher
from ltx2_job.mirror import bring, place
from ltx2_job.mirror.sync import Mirror
from ltx2_job.workspace import Workspace
from told import Told


@pytest.fixture
def store(monkeypatch):
    """An empty object store, with keys for it."""
    for name, value in object_store.ENVIRON.items():
        monkeypatch.setenv(name, value)
    with object_store.serve() as served:
        yield served


@pytest.fixture
def hub(monkeypatch):
    served = Hub()
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield served
    served.close()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A workspace: `update(**dataset)` brings a dataset's mirror up to date, `files()` is what it holds."""
    workspace, told, waits = Workspace(tmp_path), Told(), []
    made = SimpleNamespace(workspace=workspace, told=told, waits=waits, check=lambda: None)

    def dataset(**keys):
        return resolve({}, [{"id": "clips", **keys}]).clips[0]

    def update(run="fox", **keys):
        one = dataset(**keys)
        made.mirror = Mirror(place.home(workspace, one))
        monkeypatch.setattr(
            bring, "Fetcher", lambda reporter, check: Fetcher(reporter, lambda: made.check(), waits.append)
        )
        bring.bring([one], workspace, workspace.run(run), told, lambda: None)

    def files():
        root = made.mirror.files
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    made.dataset, made.update, made.files = dataset, update, files
    return made
