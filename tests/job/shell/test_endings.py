"""Every exception has one exit code and one line."""

import errno
import os

import pytest

from ltx2_job import errors, exitcodes
from ltx2_job.endings import ending


class OutOfMemoryError(RuntimeError):
    """Stands for torch.OutOfMemoryError: recognised by name, so that torch need not be imported."""


class DistBackendError(RuntimeError):
    """Stands for torch.distributed.DistBackendError."""


class SafetensorError(Exception):
    """Stands for safetensors.SafetensorError, which is no OSError."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 64),
        (errors.DataError("x"), 65),
        (errors.NoInputError("x"), 66),
        (errors.UnavailableError("x"), 69),
        (errors.StorageError("x"), 73),
        (errors.AuthError("x"), 77),
        (errors.ConfigError(errors.Problem("a", "b")), 78),
        (errors.CheckpointError(errors.Problem("a", "b")), 78),
        (errors.GPUOutOfMemoryError("x"), 80),
        (errors.Stopped("x"), 85),
        (errors.Superseded("x"), 87),
        (KeyboardInterrupt(), 85),
        (MemoryError(), 79),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), 79),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), 80),
        (RuntimeError("CUDA error: out of memory"), 80),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), 80),
        (DistBackendError("NCCL communicator was aborted"), 75),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"), 75),
        (ConnectionResetError("reset"), 69),
        (TimeoutError("slow"), 69),
        (OSError(errno.ESTALE, "Stale file handle"), 69),
        (OSError(errno.ENOSPC, "No space left on device"), 73),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 73),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), 73),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 78),
        (ModuleNotFoundError("No module named 'torch.gone'", name="torch.gone"), 78),
        (ModuleNotFoundError("No module named 'ltx2_job.gone'", name="ltx2_job.gone"), 70),
        (ValueError("x"), 70),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a"), 70),
        (SystemExit(3), 70),
    ],
)
def test_the_code_of_every_end(error, code):
    """Catches each branch in the wrong order (TimeoutError is an OSError, torch's OOM is a RuntimeError)."""
    end = ending(error)
    assert end.code == code
    assert end.defect == (code == exitcodes.SOFTWARE)  # a traceback is for defects of ours alone
    assert end.message and "\n" not in end.message


def test_a_volume_that_is_not_writable_names_the_user(tmp_path):
    """Only inside the workspace: a missing permission elsewhere is a defect. Catches mapping every PermissionError."""
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "runs" / "fox"))
    assert ending(error, tmp_path).code == exitcodes.STORAGE
    assert f"uid {os.getuid()}" in ending(error, tmp_path).message and "runs/fox" in ending(error, tmp_path).message
    assert ending(error, tmp_path / "elsewhere").code == exitcodes.SOFTWARE
    assert ending(OSError(errno.EROFS, "Read-only file system", str(tmp_path / "a")), tmp_path).code == 73


def test_a_relative_workspace_is_the_same_place(tmp_path, monkeypatch):
    """The default workspace is '.': catches comparing it with absolute paths."""
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    error = PermissionError(errno.EACCES, "Permission denied", "runs/fox")
    assert ending(error, Path(".")).code == exitcodes.STORAGE


def test_a_full_volume_says_what_to_do():
    """Catches the bare 'No space left on device'."""
    end = ending(OSError(errno.ENOSPC, "No space left on device", "/w/cache/a"))
    assert "/w/cache/a" in end.message and "grow the claim" in end.message


def test_a_base_install_says_what_to_install():
    """`ltx2 tiny` and `ltx2 generate` on a machine without torch. Catches the traceback of a missing module."""
    end = ending(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert not end.defect
    assert end.message.startswith("torch is not installed: this command needs the extra `job`; pip install ")
