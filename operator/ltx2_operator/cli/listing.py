"""`ltx2 ls`: the runs of a workspace, or those that lie on a claim of a cluster, and one run's history."""

from argparse import Namespace

from ltx2_job import exitcodes, history, runs
from ltx2_job.errors import NoInputError, UsageError
from ltx2_job.hub.snapshot import Holding, Snapshots
from ltx2_job.workspace import Workspace, read_page
from ltx2_operator.accept import size_text
from ltx2_operator.cli.rows import print_history, print_runs
from ltx2_operator.cli.words import table
from ltx2_operator.local_state import STATE_FILE


def ls(args: Namespace) -> int:
    """List what there is, or tell one run's history. Raises UsageError, NoInputError, and JobError of a cluster."""
    if args.claim is not None:
        from ltx2_operator.cli import claims  # and with it the client of Kubernetes

        return claims.ls(args)
    for flag in ("kubeconfig", "context", "namespace", "image"):
        if getattr(args, flag) is not None:
            raise UsageError(f"--{flag}: says which cluster, but not what to list there; name the claim with --claim")
    place = Workspace(args.workspace)
    if args.name is not None:
        return _one(place, args.name)
    found = {name: (runs.facts(run), read_page(run.root / STATE_FILE)) for name, run in place.runs().items()}
    if found:
        print_runs(found)
    else:
        print(f"{args.workspace / 'runs'}: no runs yet; `ltx2 run training.yaml` makes one")
    models = Snapshots(place).holdings()
    if models:
        held = [(one.repository, one.commit[:12], str(one.files), size_text(one.bytes), _begun(one)) for one in models]
        print("\n".join(["", *table([("MODEL", "COMMIT", "FILES", "SIZE", ""), *held])]))
    return exitcodes.OK


def _one(place: Workspace, name: str) -> int:
    run = place.runs().get(name)
    if run is None:
        there = f"there: {', '.join(place.runs())}" if place.runs() else "there is none in it"
        where = f"{place.root / 'runs'}; {there}; for one on a cluster name its claim, as in --claim {name}-data"
        raise NoInputError(f"{name}: no such run in {where}")
    obj = read_page(run.root / STATE_FILE)
    print_runs({name: (runs.facts(run), obj)})
    print_history(history.told(run), obj)
    return exitcodes.OK


def _begun(model: Holding) -> str:
    return f"{size_text(model.begun)} of a file that is still to be completed" if model.begun else ""
