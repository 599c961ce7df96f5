"""A control plane without nodes, on free ports of this machine's loopback: no root, no namespaces, up in seconds."""

import shutil
import socket
from pathlib import Path

from . import binaries
from .control_plane import ControlPlane, Place, answers, bring_up
from .processes import Process, start


def control_plane(folder: Path, scheduler: bool = False, bound: bool = True, audit_bodies: bool = True) -> ControlPlane:
    """Bring one up in an empty folder.

    Args:
        scheduler: whether to run the scheduler as well.
        bound: whether its processes end with the calling thread, at the latest.
        audit_bodies: whether the audit log holds what is written to trainings.

    Raises:
        Missing: openssl or setpriv is not there, or the programs cannot be built.
    """
    for program, package in (("openssl", "openssl"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            raise binaries.Missing(f"no {program}: install the package {package}")
    api, etcd, peers, controllers, scheduling = free_ports(5)
    launch = start_bound if bound else start
    place = Place(folder, "127.0.0.1", "127.0.0.1", api, (etcd, peers), controllers, scheduling, launch, audit_bodies)
    return bring_up(place, [], answers, scheduler=scheduler)


def start_bound(name: str, command: list[str], log: Path) -> Process:
    """A test run that is killed must not leave a control plane behind."""
    return start(name, ["setpriv", "--pdeathsig", "KILL", *command], log)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
