"""The captions of a clip (docs/datasets.md). Torch-free.

`textfile`: the file of the same name with .txt beside the clip, one alternative caption per non-empty line, or the
whole file where disable_multiline_split is set. `filename`: the clip's name without suffix, underscores as spaces.
`instanceprompt`: the dataset's instance_prompt for every clip. Trigger words stand before any of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ltx2_job.data.decoder import Unusable
from ltx2_job.errors import ConfigError, Problem


class CaptionOptions(Protocol):
    """What of a dataset decides its captions."""

    @property
    def id(self) -> str: ...
    @property
    def caption_strategy(self) -> str: ...
    @property
    def instance_prompt(self) -> str | None: ...
    @property
    def prepend_instance_prompt(self) -> bool: ...
    @property
    def disable_multiline_split(self) -> bool: ...


def captions(clip: Path, dataset: CaptionOptions, trigger_words: Sequence[str] = ()) -> tuple[str, ...]:
    """The alternative captions of a clip, in order, each once, never empty; with the trigger words before each.

    Raises Unusable when the caption file is missing, unreadable, empty or not UTF-8, ConfigError when instance_prompt
    is needed and not set.
    """
    prompt = (dataset.instance_prompt or "").strip()
    if not prompt and (dataset.prepend_instance_prompt or dataset.caption_strategy == "instanceprompt"):
        raise ConfigError(
            Problem(f"datasets[{dataset.id}].instance_prompt", "is not set", "write the caption that all clips share")
        )
    match dataset.caption_strategy:
        case "instanceprompt":
            texts = [prompt]
        case "filename":
            texts = [clip.stem.replace("_", " ").strip()]
        case "textfile":
            texts = _read(clip.with_suffix(".txt"), whole=dataset.disable_multiline_split)
        case other:
            raise ConfigError(
                Problem(
                    f"datasets[{dataset.id}].caption_strategy",
                    f"{other} is not supported yet",
                    "use textfile, filename or instanceprompt",
                )
            )
    if dataset.prepend_instance_prompt and dataset.caption_strategy != "instanceprompt":
        texts = [f"{prompt} {text}" for text in texts]
    return tuple(dict.fromkeys(", ".join([*trigger_words, text]) for text in texts))


def _read(path: Path, *, whole: bool) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise Unusable(f"its caption file {path.name} is missing") from None
    except UnicodeDecodeError:
        raise Unusable(f"its caption file {path.name} is not UTF-8 text") from None
    except OSError as error:
        raise Unusable(f"its caption file {path.name} cannot be read ({error.strerror})") from None
    lines = [text.strip()] if whole else [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise Unusable(f"its caption file {path.name} is empty")
    return lines
