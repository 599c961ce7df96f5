"""The store: complete or absent, at any moment of a kill."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ltx2_job import store as store_module
from ltx2_job.errors import StorageError
from ltx2_job.store import AUDIO, TEXT, VIDEO, Store

KEY = "ab" + "0" * 62
TENSORS = {"latents": torch.arange(12, dtype=torch.bfloat16).reshape(3, 4)}


def test_what_is_put_is_got(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    assert not store.has(VIDEO, KEY)
    path = store.put(VIDEO, KEY, TENSORS, {"clip": "a.mp4"})
    assert path == tmp_path / "cache" / "video" / "ab" / f"{KEY}.safetensors" == store.path(VIDEO, KEY)
    assert store.has(VIDEO, KEY) and not store.has(AUDIO, KEY)
    assert torch.equal(store.get(VIDEO, KEY)["latents"], TENSORS["latents"])
    assert store.get(VIDEO, KEY)["latents"].dtype == torch.bfloat16
    assert store.meta(VIDEO, KEY) == {"clip": "a.mp4"}
    assert list(store.items(VIDEO)) == [(KEY, path.stat().st_size)]
    assert not list((tmp_path / "cache" / "tmp").iterdir())


def test_an_item_is_written_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(VIDEO, KEY, TENSORS, {})
    before = store.path(VIDEO, KEY).stat().st_mtime_ns
    store.put(VIDEO, KEY, TENSORS, {})
    assert store.path(VIDEO, KEY).stat().st_mtime_ns == before


def test_other_roots_are_read_and_never_written(tmp_path: Path) -> None:
    Store(tmp_path / "other").put(TEXT, KEY, TENSORS, {})
    store = Store(tmp_path / "home", [tmp_path / "other"])
    assert store.has(TEXT, KEY) and torch.equal(store.get(TEXT, KEY)["latents"], TENSORS["latents"])
    assert store.remove(TEXT, KEY) == 0 and store.has(TEXT, KEY)


def test_what_is_not_there_and_what_is_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyError, match="run the cache stage again"):
        store.get(VIDEO, KEY)
    path = store.put(VIDEO, KEY, TENSORS, {})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StorageError, match="cannot be read"):
        store.get(VIDEO, KEY)
    path.write_bytes(b"\xff" * 4)
    with pytest.raises(StorageError, match="cannot be read"):
        store.meta(VIDEO, KEY)


def test_removing_frees_the_bytes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    size = store.put(VIDEO, KEY, TENSORS, {}).stat().st_size
    assert store.remove(VIDEO, KEY) == size and not store.has(VIDEO, KEY) and store.remove(VIDEO, KEY) == 0


def in_child(work: Callable[[int], None]) -> tuple[int, int]:
    """Fork a child that runs `work(pipe)`; its process id and the reading end. It writes one byte where it stands."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            work(writer)
        finally:
            os._exit(0)
    os.close(writer)
    return child, reader


@pytest.mark.parametrize("moment", ["open", "fsync", "replace", "replaced"])
def test_kill_9_at_any_moment_leaves_a_readable_store(tmp_path: Path, moment: str) -> None:
    store = Store(tmp_path)
    store.put(VIDEO, "cd" + KEY[2:], TENSORS, {})

    def work(pipe: int) -> None:
        real: dict[str, Callable[..., Any]] = {"fsync": os.fsync, "replace": os.replace, "lock": store_module._lock}

        def stop_at(name: str, *, after: bool) -> Callable[..., None]:
            def stopped(*arguments: Any) -> None:
                if after:
                    real[name](*arguments)
                os.write(pipe, b".")
                signal.pause()

            return stopped

        module, attribute, name, after = {
            "open": (store_module, "_lock", "lock", False),
            "fsync": (os, "fsync", "fsync", True),
            "replace": (os, "replace", "replace", False),
            "replaced": (os, "replace", "replace", True),
        }[moment]
        setattr(module, attribute, stop_at(name, after=after))
        store.put(VIDEO, KEY, TENSORS, {})

    child, pipe = in_child(work)
    try:
        assert os.read(pipe, 1) == b"."
        # The writer lives: its file is not taken away from it.
        left = list((tmp_path / "tmp").iterdir())
        if moment != "open":
            store.sweep()
            assert list((tmp_path / "tmp").iterdir()) == left
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(pipe)

    assert torch.equal(store.get(VIDEO, "cd" + KEY[2:])["latents"], TENSORS["latents"])
    for key, _ in store.items(VIDEO):
        assert torch.equal(store.get(VIDEO, key)["latents"], TENSORS["latents"])
    assert store.has(VIDEO, KEY) == (moment == "replaced")
    for path in left:  # as if it had lain there for long: an empty young file may belong to a writer that just began
        if path.exists() and not path.stat().st_size:
            os.utime(path, (time.time() - 7200,) * 2)
    store.sweep()
    assert not list((tmp_path / "tmp").iterdir())
    store.put(VIDEO, KEY, TENSORS, {})
    assert torch.equal(store.get(VIDEO, KEY)["latents"], TENSORS["latents"])


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", full)
        (tmp_path / "video" / "ab").mkdir(parents=True)
        (tmp_path / "tmp").mkdir()
        store.put(VIDEO, KEY, TENSORS, {})
    assert not store.has(VIDEO, KEY) and not list((tmp_path / "tmp").iterdir())
