"""`ltx2 operator`: the operator's process, in a pod of its own or outside of the cluster."""

from argparse import Namespace
from pathlib import Path

import yaml

from ltx2_job.errors import ConfigError, Problem
from ltx2_operator.runtime import logs
from ltx2_operator.runtime.client import configuration
from ltx2_operator.runtime.process import Process
from ltx2_operator.settings import Installation, read_installation


def operator(args: Namespace) -> int:
    """Work until told to stop. Raises ConfigError: settings or kubeconfig cannot be used."""
    installation = Installation() if args.settings is None else _read(args.settings)
    logs.set_up(installation.log_level)
    found, namespace = configuration(None if args.kubeconfig is None else str(args.kubeconfig))
    try:
        return Process(found, namespace, installation).run()
    except OSError as error:
        raise ConfigError([Problem("port", f"{installation.port}: {error.strerror}", "choose another")]) from None


def _read(path: Path) -> Installation:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([Problem("--settings", f"{path} cannot be read: {error}")]) from None
    if document is not None and not isinstance(document, dict):
        raise ConfigError([Problem("--settings", f"{path} holds no mapping", "write keys and values")])
    return read_installation(document)
