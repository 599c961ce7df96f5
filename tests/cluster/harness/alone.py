"""A control plane without nodes, on free ports of this machine's loopback: no root, no namespaces, up in seconds."""

import shutil
import socket
from pathlib import Path

from . import binaries
from .control_plane import ControlPlane, Place, answers, bring_up
from .processes import Process, start


def control_plane(folder: Path) -> ControlPlane:
    """Bring one up in an empty folder; its processes end with the calling thread at the latest.

    Raises:
        Missing: openssl or setpriv is not there, or the programs cannot be built.
    """
    for program, package in (("openssl", "openssl"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            raise binaries.Missing(f"no {program}: install the package {package}")
    api, etcd, peers, controllers, scheduler = _free_ports(5)
    place = Place(folder, "127.0.0.1", "127.0.0.1", api, (etcd, peers), controllers, scheduler, _start_bound)
    return bring_up(place, [], answers, scheduler=False)


def _start_bound(name: str, command: list[str], log: Path) -> Process:
    """A test run that is killed must not leave a control plane behind."""
    return start(name, ["setpriv", "--pdeathsig", "KILL", *command], log)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
