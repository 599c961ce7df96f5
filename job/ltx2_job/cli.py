"""`ltx2-job`: what the pods run, and the tools for model files and LoRAs.

Heavy modules are imported by the verb that needs them, so that --help answers at once.
"""

import argparse
import difflib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from ltx2_job import exitcodes
from ltx2_job.errors import UsageError
from ltx2_job.places import FILES
from ltx2_job.streams import open_streams
from ltx2_job.workspace import require_folder

VERBS: Final = {
    "look": "say whether all that a run needs lies in the workspace; nothing is written",
    "cache": "encode clips, sound and captions into the store",
    "train": "train the LoRA from the store",
    "validate": "make the validation videos of a run's checkpoint",
    "export": "write a checkpoint's LoRA files",
    "generate": "make a video from a prompt, with or without a LoRA",
    "inspect": "say what a model file or folder holds, and whether it can be trained from",
    "tiny": "write a tiny LTX-2 checkpoint with random weights, for trying things out",
    "config": "print the reference of all keys, or check a configuration",
    "clips": "say which clips of a configuration can be used, and why not the others",
    "facts": "say what this installation can do, as JSON: versions, torch, codecs",
    "store": "show what the cache of a workspace holds, or free what no run uses",
    "receive": "take files from standard input into a folder of the workspace (`ltx2 upload` speaks to it)",
    "send": "give the files of a run to standard output (`ltx2 fetch` speaks to it)",
    "runs": "print what the runs of a workspace have come to, as JSON (`ltx2 ls` speaks to it)",
    "hold": "wait as long as `receive` or `send` is busy here, so that their pod stays",
}


class Parser(argparse.ArgumentParser):
    """argparse, but mistakes are raised as UsageError instead of ending the process with code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError naming the command whose help explains it."""
        raise UsageError(f"{message}; see {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; imports nothing but argparse."""
    parser = Parser(prog="ltx2-job", description="The stages of an LTX-2 training, and the tools around them.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

    def verb(name: str, example: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name,
            help=VERBS[name],
            description=f"{VERBS[name][0].upper()}{VERBS[name][1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    _workspace(_stage(verb("look", "ltx2-job look --files run-files --workspace . --run fox")))
    _workspace(_stage(verb("cache", "ltx2-job cache --files run-files --workspace . --run fox --attempt 1")))
    _workspace(_stage(verb("train", "ltx2-job train --files run-files --workspace . --run fox --attempt 1")))
    validate = _checkpoint(verb("validate", "ltx2-job validate --run fox --checkpoint step-0000500"))
    _workspace(validate)
    export = _checkpoint(verb("export", "ltx2-job export --run fox --checkpoint step-0000500 --output exported/"))
    export.add_argument("--output", type=Path, required=True, metavar="DIR", help="where both forms of the LoRA go")
    _workspace(export)
    example = (
        "ltx2-job generate --model Lightricks/LTX-2 --lora runs/fox/lora.safetensors"
        ' --prompt "a red fox runs over fresh snow" --output fox.mp4'
    )
    generate = verb("generate", example)
    _generate(generate)
    _workspace(generate)
    inspect = verb("inspect", "ltx2-job inspect models/ltx-2-19b-dev.safetensors")
    text = "a .safetensors or .gguf file, or a folder of a model or text encoder"
    inspect.add_argument("file", type=Path, metavar="FILE", help=text)
    inspect.add_argument("--json", action="store_true", help="print everything that was found as JSON")
    inspect.description = (
        f"{inspect.description} Exit code: 0 if this program can use it, 78 if not, 66 if nothing is there."
    )
    _tiny(verb("tiny", "ltx2-job tiny models/tiny --version 2.3"))
    _config(verb("config", "ltx2-job config check config/config.json"))
    clips = verb("clips", "ltx2-job clips config/config.json --workspace /data")
    _configuration(clips)
    verb("facts", "ltx2-job facts")
    _store(verb("store", "ltx2-job store gc --dry-run"))
    receive = verb("receive", "ltx2-job receive --to datasets/videos")
    receive.add_argument("--to", required=True, metavar="DIR", help="a folder below the workspace; it is made")
    _workspace(receive)
    send = verb("send", "ltx2-job send --run fox")
    send.add_argument("--run", required=True, metavar="NAME", help="the run's name, or the path of its folder")
    send.add_argument("--checkpoints", action="store_true", help="its complete checkpoints as well")
    _workspace(send)
    runs = verb("runs", "ltx2-job runs --run fox")
    runs.add_argument("--run", metavar="NAME", help="this run alone, with its history")
    _workspace(runs)
    hold = verb("hold", "ltx2-job hold --idle 600")
    hold.add_argument("--idle", type=_positive, default=600, metavar="S", help="seconds without a byte (600)")
    return parser


def _stage(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    add = parser.add_argument
    add("--files", type=Path, required=True, metavar="DIR", help="folder of config.json, datasets.json and plan.json")
    add("--run", required=True, metavar="NAME", help="the run's name: its folder is runs/NAME")
    add("--attempt", type=_positive, default=1, metavar="N", help="number of this attempt (1)")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser


def _workspace(parser: argparse.ArgumentParser) -> None:
    text = "folder that relative paths resolve in (the current one)"
    parser.add_argument("--workspace", type=Path, default=Path("."), metavar="DIR", help=text)


def _checkpoint(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--run", required=True, metavar="NAME", help="the run's name, or the path of its folder")
    text = "a folder of checkpoints/, such as step-0000500 (the newest complete one)"
    parser.add_argument("--checkpoint", metavar="NAME", help=text)
    return parser


def _generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        required=True,
        metavar="NAME",
        help="a .safetensors file, a diffusers folder, or owner/name of the Hub (downloaded once into models/)",
    )
    text = "text encoder: a folder, or owner/name of the Hub (what lies beside the model)"
    add("--gemma", metavar="NAME", help=text)
    add("--flavour", default="dev", choices=tuple(FILES), help="which file of a repository of the Hub (dev)")
    add("--filename", metavar="FILE", help="the file in the repository by its name (the flavour's)")
    add("--lora", type=Path, metavar="FILE", help="a LoRA with official or diffusers names (none)")
    add("--prompt", required=True, metavar="TEXT", help="what the video shows and sounds like")
    add("--negative-prompt", default="", metavar="TEXT", help="what guidance leads away from (empty)")
    add("--width", type=_side, default=768, metavar="PX", help="a multiple of 32, at least 64 (768)")
    add("--height", type=_side, default=512, metavar="PX", help="a multiple of 32, at least 64 (512)")
    add("--frames", type=_frames, default=49, metavar="N", help="8k+1 (49)")
    add("--fps", type=_rate, default=25.0, metavar="R", help="frames per second (25)")
    add("--steps", type=_positive, default=40, metavar="N", help="sampling steps (40)")
    add(
        "--guidance", type=_finite, default=5.0, metavar="G", help="classifier-free guidance of the video; 1 is off (5)"
    )
    add("--audio-guidance", type=_finite, default=7.0, metavar="G", help="the same for the sound (7)")
    text = "guidance away from a pass without self-attention in one block; 0 is off (0; official 1)"
    add("--stg", type=_finite, default=0.0, metavar="G", help=text)
    add("--stg-block", type=_natural, metavar="N", help="that block (29 in LTX-2.0, 28 in 2.3)")
    text = "guidance away from a pass without the other modality; 1 is off (1; official 3)"
    add("--modality-guidance", type=_finite, default=1.0, metavar="G", help=text)
    text = "how much of the contrast that guidance adds is taken back, 0 to 1 (0; official 0.7)"
    add("--rescale", type=_fraction, default=0.0, metavar="R", help=text)
    add("--seed", type=_natural, default=42, metavar="N", help="same seed, same noise (42)")
    add("--device", choices=("cuda", "cpu"), help="where to compute (the GPU if there is one)")
    add("--output", type=_mp4, required=True, metavar="FILE", help="the .mp4 to write")


def _tiny(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="where ltx-2-tiny.safetensors and gemma/ are written")
    parser.add_argument("--version", default="2.0", choices=("2.0", "2.3"), help="generation of the architecture (2.0)")
    parser.add_argument("--blocks", type=_positive, default=2, metavar="N", help="transformer blocks (2)")
    parser.add_argument("--seed", type=_natural, default=0, metavar="N", help="seed of the weights (0)")


def _sub(what: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    """A verb below a verb."""
    parser: argparse.ArgumentParser = what.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    return parser


def _config(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="reference|check", required=True, parser_class=Parser)
    text = "every key with its default and meaning, as Markdown"
    _sub(what, "reference", text, "ltx2-job config reference > keys.md")
    text = "resolve a configuration and print corrections and mistakes"
    _configuration(_sub(what, "check", text, "ltx2-job config check config/config.json"))


def _configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="config.json")
    text = "the dataset file (the one that config.json names)"
    parser.add_argument("--datasets", type=Path, metavar="FILE", help=text)
    _workspace(parser)


def _store(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="ls|gc", required=True, parser_class=Parser)
    listing = _sub(what, "ls", "items and bytes by kind", "ltx2-job store ls --workspace /data")
    text = "remove items that no run's index refers to"
    free = _sub(what, "gc", text, "ltx2-job store gc --dry-run --workspace /data")
    free.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    for one in (listing, free):
        _workspace(one)


def _number(text: str, kind: type[int] | type[float], fits: Callable[[float], bool], wanted: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def _natural(text: str) -> int:
    return int(_number(text, int, lambda value: value >= 0, "a whole number of 0 or more"))


def _finite(text: str) -> float:
    return _number(text, float, math.isfinite, "a finite number")


def _positive(text: str) -> int:
    return int(_number(text, int, lambda value: value >= 1, "a whole number of 1 or more"))


def _side(text: str) -> int:
    return int(_number(text, int, lambda value: value >= 64 and value % 32 == 0, "a multiple of 32, at least 64"))


def _frames(text: str) -> int:
    return int(_number(text, int, lambda value: value >= 1 and value % 8 == 1, "8k+1 (1, 9, 17, … 49, … 121)"))


def _fraction(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _rate(text: str) -> float:
    return _number(text, float, lambda value: 0 < value <= 240, "a frame rate between 0 and 240")


def _mp4(text: str) -> Path:
    if not text.endswith(".mp4"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .mp4")
    return Path(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code (exitcodes.py). Usage mistakes are 64 and name the nearest verb."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    open_streams()
    try:
        name = arguments[0] if arguments else ""
        if name and not name.startswith("-") and name not in VERBS:
            near = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.4)
            raise UsageError(
                f"{name}: no such verb; " + (f"did you mean {near[0]}?" if near else "see ltx2-job --help")
            )
        args = build_parser().parse_args(arguments)
    except UsageError as error:
        print(f"ltx2-job: {error}", file=sys.stderr)
        return error.exit_code
    if args.verb in ("look", "cache", "train"):
        from ltx2_job.supervise import Order, supervise, work

        order = Order(args.verb, args.files, args.workspace, args.run, args.attempt)
        if args.verb == "look":
            from ltx2_job.looking import look

            return look(order)
        if args.worker:
            from ltx2_job.commands import STAGES

            return work(order, STAGES[args.verb])
        return supervise(order, arguments)
    from ltx2_job import commands

    try:
        if "workspace" in args:
            require_folder("--workspace", args.workspace)
        code: int | None = getattr(commands, args.verb)(args)
    except BaseException as error:  # every way out has a code; see endings.py
        return commands.end(error, getattr(args, "workspace", None))
    return code or exitcodes.OK


if __name__ == "__main__":
    sys.exit(main())
