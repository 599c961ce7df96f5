"""`ltx2 ls --claim`: the runs that lie on a claim of a cluster, those whose object was deleted as well."""

import contextlib
from argparse import Namespace
from pathlib import Path
from typing import Any

from ltx2_job import exitcodes
from ltx2_job.errors import AuthError, ConfigError, NoInputError, UsageError
from ltx2_job.exitcodes import NO_INPUT
from ltx2_job.transfer import RemoteError, Talk
from ltx2_operator import children
from ltx2_operator.api import parse
from ltx2_operator.cli.moving import Bar, cluster_of, command
from ltx2_operator.cli.rows import print_history, print_runs
from ltx2_operator.remote import pod
from ltx2_operator.remote.access import Cluster, training_path
from ltx2_operator.runtime.client import Body, NotFound


def ls(args: Namespace) -> int:
    """List the runs of --claim, or tell the history of one. Raises UsageError, NoInputError, JobError."""
    if args.workspace != Path("."):
        raise UsageError("--workspace: a folder of this machine, and --claim a claim of a cluster; name one of them")
    cluster, claim = cluster_of(args), args.claim
    found = _told(cluster, args)
    objects = _objects(cluster, claim)
    if not found:
        print(f"claim {claim}: no run lies on it yet")
        return exitcodes.OK
    print_runs({name: (page, objects.get(name, {})) for name, page in found.items()})
    if args.name is not None:
        print_history(found[args.name].get("history") or [], objects.get(args.name, {}))
    return exitcodes.OK


def _told(cluster: Cluster, args: Namespace) -> dict[str, dict[str, Any]]:
    """What `ltx2-job runs` says in a pod that mounts the claim: by name, the facts of each run."""
    claim, bar = args.claim, Bar("ls")
    source = pod.source_of(cluster, args.name, args.image)
    body = pod.manifest(args.name or claim, claim, source, None, read_only=True)
    words = ["runs", *(["--run", args.name] if args.name else [])]
    try:
        with command(cluster, body, words, bar, claim) as pipe:
            return dict(Talk(pipe).hear("runs")[1])
    except RemoteError as error:
        if error.exit_code != NO_INPUT:
            raise
        text = f"claim {claim}: no run {args.name} lies on it; `ltx2 ls --claim {claim}` lists those that do"
        raise NoInputError(text) from None


def _objects(cluster: Cluster, claim: str) -> dict[str, Body]:
    """The trainings of a claim whose objects are left; none where they may not be read."""
    found: dict[str, Body] = {}
    with contextlib.suppress(AuthError, NotFound):
        for one in cluster.get(training_path(cluster))["items"]:
            with contextlib.suppress(ConfigError):  # of another version
                if children.claim_name(parse(one)) == claim:
                    found[one["metadata"]["name"]] = one
    return found
