"""`ltx2`: what a user types. Each verb's code is imported when it is asked for, so that --help answers at once."""

import argparse
import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from ltx2_job.errors import JobError, UsageError
from ltx2_job.exitcodes import CONFIG, STORAGE
from ltx2_job.streams import open_streams
from ltx2_job.workspace import require_folder

# verb -> (module of this package, one line of help)
VERBS: Final = {
    "run": ("training", "train what a manifest says, on this machine"),
    "train": ("training", "train config/config.json and its datasets, on this machine"),
    "render": ("rendering", "print what a cluster would get for a manifest"),
    "estimate": ("estimating", "say which GPU classes fit a manifest: memory, seconds, hours, disk"),
    "check": ("checking", "look at manifest or config.json, model, clips and this machine, and train nothing"),
    "gpus": ("looking", "list the GPU classes and the GPUs of this machine"),
    "doctor": ("doctor", "say what here stands in the way of a training: versions, GPU, disk, hub, cluster"),
    "ls": (
        "listing",
        "list the runs of a workspace or of a claim on a cluster, or tell what happened to one",
    ),
    "configure": ("configure", "ask a few questions and write training.yaml"),
    "upload": ("uploading", "copy a folder of clips onto the volume of a training on a cluster"),
    "fetch": ("fetching", "bring LoRA, samples, plots and report of a training on a cluster to this machine"),
    "retry": ("retrying", "give a training on a cluster that failed another attempt"),
    "operator": ("operator", "run the operator of a cluster (the chart's Deployment does)"),
}
# flag of `configure` -> what it answers (cli/questions.py)
ANSWERS: Final = {
    "name": "name of the run",
    "clips": "folder of the clips",
    "captions": "where captions come from: textfile, filename or instanceprompt",
    "instance-prompt": "the caption of all clips, with instanceprompt",
    "model": "a name on the hub, or a path",
    "flavour": "flavour of the model",
    "gpu": "GPU class: auto, cpu or a name of `ltx2 gpus`",
    "steps": "optimizer steps",
    "resolution": "resolution of the clips",
    "frames": "frames of a clip",
    "prompt": "prompt of the validation samples",
    "trigger-words": "words that call the style, with commas between them",
}
# verb -> (verb of ltx2-job, one line of help)
PASSED_THROUGH: Final = {
    "cache": ("store", "ls: what the cache of a workspace holds; gc: free what no run uses"),
    "config": ("config", "print the reference of all keys, or check a config.json"),
    "tiny": ("tiny", "write a tiny LTX-2 checkpoint for trying things out"),
    "validate": ("validate", "make the validation videos of a checkpoint"),
    "export": ("export", "write a checkpoint's LoRA files"),
    "generate": ("generate", "make a video from a prompt"),
    "inspect": ("inspect", "say what a model file or folder holds"),
}

# What the base install brings: where one of them is missing, the installation is broken, not the program.
INSTALLED_WITH_IT: Final = frozenset(
    {"kubernetes", "packaging", "prometheus_client", "pydantic", "pydantic_settings", "rich", "yaml"}
)


class Parser(argparse.ArgumentParser):
    """argparse, but mistakes are raised as UsageError (exit code 64)."""

    @property
    def flags(self) -> list[str]:
        """Every flag that it knows."""
        return [flag for action in self._actions for flag in action.option_strings]

    @property
    def positionals(self) -> list[str]:
        """What stands on the command line without a flag, as its help names it."""
        return [str(action.metavar) for action in self._actions if not action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Raise UsageError naming the command whose help explains it."""
        raise UsageError(f"{message}; see `{self.prog} --help`")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; imports nothing but argparse."""
    passed = "\n".join(f"    {name:20}{text}" for name, (_, text) in PASSED_THROUGH.items())
    parser = Parser(
        prog="ltx2",
        description="Fine-tune LTX-2: one manifest in, a LoRA out; on this machine or, unchanged, on a cluster.",
        epilog=f"tools (run by ltx2-job):\n{passed}\n\nexample:\n  ltx2 run training.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

    def verb(name: str, example: str) -> argparse.ArgumentParser:
        text = VERBS[name][1]
        made: argparse.ArgumentParser = verbs.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        made.set_defaults(parser=made)
        return made

    run = verb("run", "ltx2 run training.yaml")
    run.add_argument("file", type=Path, metavar="FILE", help="an LTX2Training, or the output of `ltx2 render`")
    train = verb("train", "ltx2 train --learning_rate=5e-5")
    train.add_argument(
        "--config",
        type=Path,
        default=Path("config/config.json"),
        metavar="FILE",
        help="the guide's file (config/config.json)",
    )
    train.epilog = f"{train.epilog}\n\nLTX2_<KEY> variables and --key=value flags stand above the file."
    render = verb("render", "ltx2 render training.yaml > rendered.yaml")
    estimate = verb("estimate", "ltx2 estimate training.yaml")
    check = verb("check", "ltx2 check training.yaml")
    for parser_, text in (
        (render, "an LTX2Training"),
        (estimate, "an LTX2Training or a config.json"),
        (check, "an LTX2Training or a config.json"),
    ):
        parser_.add_argument("file", type=Path, metavar="FILE", help=text)
    estimate.add_argument("--class", dest="gpu_class", metavar="NAME", help="all terms of one GPU class of `ltx2 gpus`")
    verb("gpus", "ltx2 gpus")
    doctor = verb("doctor", "ltx2 doctor --workspace /data")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.epilog = f"{doctor.epilog}\n\nexit code: 0 if nothing is to be fixed, else 78"
    ls = verb("ls", "ltx2 ls fox\n  ltx2 ls --claim fox-data\n  ltx2 ls --claim fox-data fox")
    ls.add_argument("name", nargs="?", metavar="NAME", help="this run alone, with its history")
    text = "list what lies on this claim of a cluster, runs whose object was deleted as well (a folder of this machine)"
    ls.add_argument("--claim", metavar="NAME", help=text)
    ls.add_argument("--image", metavar="IMAGE", help="image of the pod that looks there (the one of the newest Job)")
    _reach(ls)
    configure = verb("configure", "ltx2 configure --name fox --clips films --set learning_rate=5e-5")
    configure.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the manifest to write (training.yaml)")
    configure.add_argument("--guide", action="store_true", help="write config/config.json and its datasets instead")
    configure.add_argument("--yes", action="store_true", help="take all defaults without asking")
    configure.add_argument("--force", action="store_true", help="replace files that exist")
    configure.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of config.json")
    for flag, text in ANSWERS.items():
        configure.add_argument(f"--{flag}", metavar="TEXT", help=text)
    operator = verb("operator", "ltx2 operator --settings settings.yaml --kubeconfig ~/.kube/config")
    operator.add_argument("--settings", type=Path, metavar="FILE", help="the installation's settings; none: defaults")
    text = "reach the cluster with this file instead of the pod's service account"
    operator.add_argument("--kubeconfig", type=Path, metavar="FILE", help=text)
    _cluster(
        verb("upload", "ltx2 upload clips my-style"),
        verb("fetch", "ltx2 fetch my-style"),
        verb("retry", "ltx2 retry my-style"),
    )
    for one in (run, train, render, estimate, check, doctor, ls, configure):
        text = "folder that relative paths resolve in (the current one)"
        one.add_argument("--workspace", type=Path, default=Path("."), metavar="DIR", help=text)
    return parser


def _cluster(upload: argparse.ArgumentParser, fetch: argparse.ArgumentParser, retry: argparse.ArgumentParser) -> None:
    """Arguments of the verbs that are about a training on a cluster."""
    upload.add_argument("dir", type=Path, metavar="DIR", help="folder of the clips, with its sub-folders")
    for one in (upload, fetch, retry):
        one.add_argument("name", metavar="NAME", help="name of the training, as in `kubectl get ltx2`")
        _reach(one)
    text = "folder on the volume, under the workspace (the folder of the training's data set)"
    upload.add_argument("--to", metavar="DIR", help=text)
    fetch.add_argument("dir", type=Path, nargs="?", metavar="DIR", help="where to put the files (NAME)")
    fetch.add_argument("--checkpoints", action="store_true", help="the complete checkpoints as well")
    text = "the claim to look on, where the training's object was deleted (the training's)"
    fetch.add_argument("--claim", metavar="NAME", help=text)
    for one in (upload, fetch):
        one.add_argument(
            "--image", metavar="IMAGE", help="image of the pod that copies (the one of the training's Jobs)"
        )


def _reach(parser: argparse.ArgumentParser) -> None:
    """Which cluster, and where in it."""
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="as kubectl's (KUBECONFIG, ~/.kube/config)")
    parser.add_argument("--context", metavar="NAME", help="context of the kubeconfig (the current one)")
    parser.add_argument("-n", "--namespace", metavar="NAME", help="namespace of training and claim (the context's)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code (ltx2_job.exitcodes)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    open_streams()
    try:
        name = arguments[0] if arguments else ""
        if name in PASSED_THROUGH:
            return _pass([PASSED_THROUGH[name][0], *arguments[1:]])
        if name.startswith("-") and name not in ("-h", "--help"):
            raise UsageError(f"{name}: the verb comes first, as in `ltx2 run training.yaml`; see `ltx2 --help`")
        if name and not name.startswith("-") and name not in VERBS:
            near = difflib.get_close_matches(name.lower(), [*VERBS, *PASSED_THROUGH], n=1, cutoff=0.5)
            raise UsageError(f"{name}: no such verb; " + (f"did you mean {near[0]}?" if near else "see `ltx2 --help`"))
        args, rest = build_parser().parse_known_args(arguments)
        if rest and args.verb != "train":
            raise UsageError(_unknown(rest[0], args))
        args.flags = rest
        if "workspace" in args and args.verb != "doctor":
            require_folder("--workspace", args.workspace)
        module = importlib.import_module(f"ltx2_operator.cli.{VERBS[args.verb][0]}")
        code: int = getattr(module, args.verb)(args)
        return code
    except JobError as error:
        print(f"ltx2: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in INSTALLED_WITH_IT:
            raise
        print(
            f"ltx2: {error.name} is not installed; pip install . in the project's folder, then ltx2 doctor",
            file=sys.stderr,
        )
        return CONFIG
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of a pipe has seen enough
        return 0
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"ltx2: {where}{error.strerror}; {_remedy(error)}", file=sys.stderr)
        return STORAGE


def _unknown(word: str, args: argparse.Namespace) -> str:
    """What to say of a word that a verb does not take."""
    command = f"ltx2 {args.verb}"
    if not word.startswith("-"):
        names = " ".join(args.parser.positionals)
        takes = names if names not in ("", "FILE") else "one FILE" if names else "no FILE"
        return f"{word}: not known to `{command}`, which takes {takes}; see `{command} --help`"
    near = difflib.get_close_matches(word.partition("=")[0], args.parser.flags, n=1, cutoff=0.6)
    return f"{word}: not known to `{command}`; " + (f"did you mean {near[0]}?" if near else f"see `{command} --help`")


def _remedy(error: OSError) -> str:
    """What to do about a folder that cannot be written."""
    if isinstance(error, NotADirectoryError | FileExistsError):
        return "a file lies where a folder is wanted: move it away, or give another --workspace"
    return "make room, or make it writable for this user, or give another --workspace"


def _pass(arguments: Sequence[str]) -> int:
    """Become `ltx2-job`: the same terminal, the same signals, its exit code."""
    from ltx2_operator.processes import find_program

    program = find_program("ltx2-job", os.environ)
    sys.stdout.flush()
    os.execv(program, [program, *arguments])
