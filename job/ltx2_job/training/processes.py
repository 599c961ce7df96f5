"""The few things that processes do together. With one process nothing here touches torch.distributed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ltx2_job import exitcodes
from ltx2_job.errors import JobError, Stopped

# Rank 0 validates and saves while the others wait for the next step's exchange; a lost peer ends the launcher's job
# anyway.
PATIENCE = timedelta(hours=2)


class PeerLostError(JobError):
    """Another process of this training went away, or did not answer in time."""

    exit_code = exitcodes.TEMPORARY


@dataclass(frozen=True)
class Processes:
    """This process among its peers: rank of world, and the device it computes on."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> None:
        """Add up a tensor over all processes, in place. Raises PeerLostError."""
        if self.world > 1:
            with _peers():
                dist.all_reduce(tensor)

    def any(self, flag: bool) -> bool:
        """Whether any process says yes; waits for all of them. Raises PeerLostError."""
        if self.world == 1:
            return flag
        said = torch.tensor(float(flag), device=self.device)
        self.sum(said)
        return bool(said > 0)

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every process. Raises PeerLostError."""
        if self.world == 1:
            return value
        box = [value]
        with _peers():
            dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]


@contextmanager
def join(rank: int, world: int, local_rank: int, device: str) -> Iterator[Processes]:
    """Meet the peers (RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set by the launcher) and leave them at the end.

    `device` is "cpu" (gloo) or "cuda" (nccl; one GPU per process, numbered by `local_rank`). Raises PeerLostError where
    the peers cannot be met.
    """
    place = torch.device(device, local_rank) if device == "cuda" else torch.device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    processes = Processes(rank, world, place)
    if world == 1:
        yield processes
        return
    with _peers():
        dist.init_process_group(
            "nccl" if place.type == "cuda" else "gloo", rank=rank, world_size=world, timeout=PATIENCE
        )
    try:
        yield processes
    except Stopped:  # all ranks leave together, so the peers are still there to say goodbye to
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise PeerLostError(f"lost another process of this training: {str(error).splitlines()[0]}") from error
