"""`python -m cluster.harness`, in the folder tests: a cluster for a person, from the command line."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from . import alone, binaries


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster.harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("control-plane", help="API server and controllers without nodes, until Ctrl-C")
    arguments = parser.parse_args()
    try:
        return {"control-plane": _control_plane}[arguments.command]()
    except binaries.Missing as why:
        print(f"cluster: {why}", file=sys.stderr)
        return 69


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
