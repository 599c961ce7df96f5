"""`ltx2 retry`: another attempt for a run that has failed."""

from argparse import Namespace
from typing import Final

from ltx2_job.errors import UnavailableError, UsageError
from ltx2_operator import conditions
from ltx2_operator.api import parse
from ltx2_operator.cli.moving import cluster_of
from ltx2_operator.remote.access import training, training_path
from ltx2_operator.runtime.client import Conflict

TRIES: Final = 5  # somebody else, the operator too, may write between the look and the patch
RETRIES_MOST: Final = 1000  # as spec.retries takes


def retry(args: Namespace) -> int:
    """Raise spec.retries by one. Raises UsageError for a run that has not failed, and JobError."""
    cluster = cluster_of(args)
    for _ in range(TRIES):
        obj = training(cluster, args.name)
        typed, status = parse({key: obj[key] for key in obj if key != "status"}), obj.get("status") or {}
        found = status.get("conditions") or []
        if not conditions.is_true(found, "Failed"):
            raise UsageError(
                f"{args.name} has not failed: it is {status.get('state') or 'new'}; nothing is to be retried"
            )
        retries = typed.spec.retries
        if retries > int(status.get("failedRetries") or 0):
            print(f"{args.name}: spec.retries was raised to {retries} already; the operator is about to see it")
            return 0
        if retries >= RETRIES_MOST:
            raise UsageError(f"{args.name}: spec.retries is {retries}, the most; delete the object and apply it again")
        version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        try:
            cluster.patch(training_path(cluster, args.name), {"metadata": version, "spec": {"retries": retries + 1}})
        except Conflict:
            continue
        failed = conditions.get_condition(found, "Failed") or {}
        step = (status.get("checkpoint") or {}).get("step")
        whence = f"from step {step}" if step else "from the beginning"
        print(f"{args.name} had failed: {failed.get('reason')}: {failed.get('message')}")
        print(f"spec.retries is {retries + 1} now: attempt {int(status.get('attempt') or 0) + 1} goes on {whence}")
        return 0
    raise UnavailableError(f"{args.name}: it changes all the time; run it again")
