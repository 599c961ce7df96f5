"""`python -m cluster.harness`, in the folder tests: a cluster for a person, from the command line."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import alone, binaries, cluster, simulated


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster.harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("control-plane", help="API server and controllers without nodes, until Ctrl-C")
    for command, text in (
        (
            "up",
            "a cluster with two nodes, from an empty etcd; one of the name that runs is left as it is; where "
            "nodes cannot run (no root, no containerd) they are simulated",
        ),
        ("down", "end it and remove what it left"),
        ("status", "whether it runs, and how to reach it"),
        ("load", "give both nodes images of podman's storage"),
    ):
        known = commands.add_parser(command, help=text)
        known.add_argument("--name", default="ltx2", help="the cluster's name (ltx2)")
        if command == "load":
            known.add_argument("images", nargs="+", metavar="IMAGE")
    arguments = parser.parse_args()
    try:
        if arguments.command == "control-plane":
            return _control_plane()
        return {"up": _up, "down": _down, "status": _status, "load": _load}[arguments.command](arguments)
    except (binaries.Missing, ValueError, RuntimeError) as why:
        print(f"cluster: {why}", file=sys.stderr)
        return 69


def _up(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    if cluster.find(arguments.name) is None and simulated.find(arguments.name) is None:
        try:
            cluster.check_machine()
        except binaries.Missing as why:
            print(f"{arguments.name}: {why}; its nodes are simulated instead: pods run and end, nothing is executed")
            simulated.up(arguments.name)
        else:
            cluster.up(arguments.name)
        print(f"{arguments.name}: up in {time.monotonic() - began:.0f} s")
    return _status(arguments)


def _down(arguments: argparse.Namespace) -> int:
    cluster.down(arguments.name)
    simulated.down(arguments.name)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    pretending = simulated.find(arguments.name)
    if pretending is not None:
        print(pretending.kubectl("get", "nodes"))
        print("simulated nodes (no containers): what pods do, by their annotations, is told in", simulated.STAGES)
        print(f"export KUBECONFIG={pretending.kubeconfig}")
        print(f"{binaries.kube()} kubectl get pods -A")
        print(f"logs: {pretending.folder / 'logs'}   audit log: {pretending.audit_log}")
        return 0
    running = cluster.find(arguments.name)
    if running is None:
        print(f"{arguments.name}: not running; its logs, if any: {cluster.folder_of(arguments.name) / 'logs'}")
        return 1
    print(running.kubectl("get", "nodes"))
    print(f"export KUBECONFIG={running.kubeconfig}")
    print(f"{binaries.kube()} kubectl get pods -A        # or any kubectl or helm of yours")
    print(f"{' '.join(running.namespace.enter())} sh             # a shell inside the cluster's network and mounts")
    print(f"logs: {running.folder / 'logs'}   audit log: {running.audit_log}")
    return 0


def _load(arguments: argparse.Namespace) -> int:
    running = cluster.find(arguments.name)
    if running is None:
        raise RuntimeError(f"no cluster {arguments.name} runs; bring it up first")
    for image in arguments.images:
        running.load_image(image)
    return 0


def _control_plane() -> int:
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="ltx2-control-plane-") as folder:
        plane = alone.control_plane(Path(folder))
        print(f"export KUBECONFIG={plane.kubeconfig('admin')}\n{binaries.kube()} kubectl get namespaces", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            plane.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
