"""`ltx2 fetch`: what a run has made, from its claim to this machine."""

from argparse import Namespace
from pathlib import Path

from ltx2_job import transfer
from ltx2_job.errors import NoInputError
from ltx2_job.exitcodes import NO_INPUT
from ltx2_job.transfer import RemoteError
from ltx2_operator import children
from ltx2_operator.api import parse
from ltx2_operator.cli.moving import Bar, cluster_of, command, moved_text
from ltx2_operator.remote import pod
from ltx2_operator.remote.access import training


def fetch(args: Namespace) -> int:
    """Copy what this machine lacks of a run's folder. Raises JobError."""
    cluster, obj = cluster_of(args), None
    if args.claim is None:
        try:
            obj = training(cluster, args.name)
        except NoInputError as error:
            raise NoInputError(f"{error}; where its claim is left: --claim {args.name}-data") from None
    claim = args.claim or children.claim_name(parse(obj or {}))
    folder, bar = args.dir or Path(args.name), Bar("fetch")
    body = pod.manifest(args.name, claim, pod.source_of(cluster, args.name, args.image), obj, read_only=True)
    flags = ["--checkpoints"] if args.checkpoints else []
    try:
        with command(cluster, body, ["send", "--run", args.name, *flags], bar, claim) as pipe:
            tally = transfer.receive(pipe, folder, bar.moved, bar.coming)
    except RemoteError as error:
        if error.exit_code != NO_INPUT:
            raise
        state = ((obj or {}).get("status") or {}).get("state")
        raise NoInputError(
            f"claim {claim}: {args.name} has written nothing yet" + (f", it is {state}" if state else "")
        ) from None
    print(moved_text(tally, f"{folder}/"))
    lora = folder / "lora.safetensors"
    print(f"LoRA: {lora}" if lora.is_file() else "there is no LoRA yet: the run has not finished")
    return 0
