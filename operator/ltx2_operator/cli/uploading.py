"""`ltx2 upload`: the clips of a folder onto the claim of a training."""

from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from ltx2_job import transfer
from ltx2_job.config import resolve
from ltx2_job.discover import EXTENSIONS
from ltx2_job.errors import ConfigError, NoInputError, Problem, UsageError
from ltx2_job.workspace import require_folder
from ltx2_operator import children
from ltx2_operator.api import LTX2Training, parse
from ltx2_operator.between import UPLOADED
from ltx2_operator.cli.moving import Bar, cluster_of, command, moved_text
from ltx2_operator.pods import WORKSPACE
from ltx2_operator.remote import pod
from ltx2_operator.remote.access import training, training_path


def upload(args: Namespace) -> int:
    """Copy what the claim lacks, then tell the operator to look. Raises JobError."""
    require_folder("DIR", args.dir)
    files = transfer.listed(args.dir)
    if not files:
        raise NoInputError(f"{args.dir}: there is no file in it; name the folder that holds the clips")
    cluster = cluster_of(args)
    obj = training(cluster, args.name)
    typed = parse(obj)
    folder = args.to or datasets_folder(typed)
    if not args.to and not any(name.lower().endswith(EXTENSIONS) for name in files):
        raise NoInputError(
            f"{args.dir}: there is no video file in it ({', '.join(EXTENSIONS)}); "
            f"for other files name the folder on the volume, as in --to {folder}"
        )
    claim, bar = children.claim_name(typed), Bar("upload")
    body = pod.manifest(args.name, claim, pod.source_of(cluster, args.name, args.image), obj, read_only=False)
    with command(cluster, body, ["receive", "--to", folder], bar, claim) as pipe:
        tally = transfer.send(pipe, files, bar.moved, bar.coming)
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    cluster.patch(training_path(cluster, args.name), {"metadata": {"annotations": {UPLOADED: now}}})
    print(moved_text(tally, f"{folder} on claim {claim}"))
    print(f"next: kubectl get ltx2 {args.name} -n {cluster.namespace} -w")
    return 0


def datasets_folder(typed: LTX2Training) -> str:
    """The folder of the training's clips, under the workspace.

    Raises UsageError where there are several or they are not known here, ConfigError where it is not on the volume.
    """
    if typed.spec.datasets is None or typed.spec.config is None:
        raise UsageError(f"--to: the data sets of {typed.metadata.name} do not stand in its object; name the folder")
    datasets = resolve(typed.spec.config, typed.spec.datasets).clips
    found = {one.id: str(one.instance_data_dir) for one in datasets if one.type == "local"}
    folders = sorted(set(found.values()))
    if len(folders) != 1:
        words = ", ".join(f"{name}: {folder}" for name, folder in found.items())
        many = f"has several data sets ({words})" if folders else "takes no clips from its volume"
        raise UsageError(f"--to: {typed.metadata.name} {many}; name the folder")
    return _under_workspace(folders[0])


def _under_workspace(folder: str) -> str:
    path: Any = PurePosixPath(folder)
    if path.is_absolute():
        if not path.is_relative_to(WORKSPACE):
            raise ConfigError(
                Problem("instance_data_dir", f"{folder} is not on the volume", f"write a path below {WORKSPACE}")
            )
        path = path.relative_to(WORKSPACE)
    return str(Path(path))
