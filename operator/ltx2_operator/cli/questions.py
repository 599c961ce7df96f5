"""The questions of `ltx2 configure` and what their answers become; looks at the workspace, asks and writes nothing.

Every answer is judged by the models that read the finished file: a question knows its field, and `review` says which
problems and corrections belong to it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ltx2_job.config import Resolved, resolve
from ltx2_job.config.layers import TRAINING
from ltx2_job.config.training import TrainingConfig
from ltx2_job.discover import find_clips
from ltx2_job.errors import ConfigError, NoInputError, Problem
from ltx2_job.workspace import Workspace
from ltx2_operator import gpus
from ltx2_operator.api import parse
from ltx2_operator.cli import inputs
from ltx2_operator.fields import API_VERSION, KIND
from ltx2_operator.machine import LocalGpu

FILE: Final = "training.yaml"
GUIDE_CONFIG: Final = Path("config/config.json")
GUIDE_DATASETS: Final = Path("config/multidatabackend.json")
HUB_MODEL: Final = "Lightricks/LTX-2"
_CLIPS: Final = "datasets/videos"

Answers = Mapping[str, str]


@dataclass(frozen=True)
class Surroundings:
    """What defaults are taken from: the workspace, the GPUs of this machine, and which files shall be written."""

    workspace: Path
    found: Sequence[LocalGpu] = ()
    guide: bool = False

    def clips(self, folder: str) -> list[Path]:
        """The clips of a folder, none where it is not there."""
        try:
            return find_clips(Workspace(self.workspace).resolve(folder), folder)
        except NoInputError:
            return []

    def captioned(self, folder: str) -> list[Path]:
        """The caption files beside the clips of a folder."""
        return [text for clip in self.clips(folder) if (text := clip.with_suffix(".txt")).is_file()]


@dataclass(frozen=True)
class Question:
    """One answer of the file.

    key: its name for `--set` and among the answers. field: how problems name it. default: from what is known so far;
    "" leaves the key out. note: what is said after a good answer. asked: whether it matters at all. optional: whether
    the key may be left out.
    """

    key: str
    flag: str
    text: str
    field: str
    default: Callable[[Answers, Surroundings], str]
    note: Callable[[str, Surroundings], str] = lambda answer, around: ""
    asked: Callable[[Answers, Surroundings], bool] = lambda answers, around: True
    optional: bool = False


def _name(answers: Answers, around: Surroundings) -> str:
    return inputs.as_name(around.workspace.resolve().name) or "my-style"


def _clips_note(answer: str, around: Surroundings) -> str:
    clips = around.clips(answer)
    if not clips:
        return "no clip is there yet; put them there before the run"
    return f"{len(clips)} clips, {len(around.captioned(answer))} of them with a caption file"


def _captions(answers: Answers, around: Surroundings) -> str:
    folder = answers["instance_data_dir"]
    return "filename" if around.clips(folder) and not around.captioned(folder) else "textfile"


def _model(answers: Answers, around: Surroundings) -> str:
    files = sorted((around.workspace / "models").glob("*.safetensors"))
    return files[0].relative_to(around.workspace).as_posix() if files else HUB_MODEL


def _gpu_note(answer: str, around: Surroundings) -> str:
    if not around.found:
        return "this machine has no GPU"
    names = sorted({gpu.gpu_class.name if gpu.gpu_class else gpu.product for gpu in around.found})
    return f"this machine has {len(around.found)} x {', '.join(names)}"


def _prompt(answers: Answers, around: Surroundings) -> str:
    for path in around.captioned(answers["instance_data_dir"]):
        lines = path.read_text(errors="replace").strip().splitlines()
        if lines:
            return lines[0].strip()
    return ""


def _key_default(name: str) -> Callable[[Answers, Surroundings], str]:
    value = TrainingConfig().model_dump()[name]
    return lambda answers, around: f"{value:g}" if isinstance(value, float) else str(value)


QUESTIONS: Final = (
    Question("name", "name", "Name of the run", "metadata.name", _name),
    Question(
        "instance_data_dir", "clips", "Folder of the clips", "datasets[0].instance_data_dir",
        lambda answers, around: _CLIPS, _clips_note,
    ),
    Question(
        "caption_strategy", "captions", "Captions: textfile, filename or instanceprompt",
        "datasets[0].caption_strategy", _captions,
    ),
    Question(
        "instance_prompt", "instance-prompt", "The caption of all clips", "instance_prompt",
        lambda answers, around: answers["name"],
        asked=lambda answers, around: answers["caption_strategy"] == "instanceprompt",
    ),
    Question(
        "pretrained_model_name_or_path", "model", "Model: a name on the hub, or a path",
        "pretrained_model_name_or_path", _model,
    ),
    Question("model_flavour", "flavour", "Its flavour", "model_flavour", _key_default("model_flavour")),
    Question(
        "class", "gpu", "GPU class: auto, cpu or a name of `ltx2 gpus`", "spec.gpu.class",
        lambda answers, around: gpus.AUTO, _gpu_note, lambda answers, around: not around.guide,
    ),
    Question("max_train_steps", "steps", "Steps to train", "max_train_steps", _key_default("max_train_steps")),
    Question(
        "resolution", "resolution", "Resolution of the clips", "datasets[0].resolution", _key_default("resolution"),
    ),
    Question("num_frames", "frames", "Frames of a clip, 8k+1", "datasets[0].video.num_frames", lambda a, s: "49"),
    Question("validation_prompt", "prompt", "Prompt of the samples", "validation_prompt", _prompt, optional=True),
    Question(
        "trigger_words", "trigger-words", "Words that call the style, with commas", "trigger_words",
        lambda answers, around: "", optional=True,
    ),
)  # fmt: skip
BY_KEY: Final = {question.key: question for question in QUESTIONS}


@dataclass(frozen=True)
class Review:
    """What the models say about the answers so far. resolved: None where there are problems."""

    problems: tuple[Problem, ...] = ()
    corrections: tuple[str, ...] = ()
    resolved: Resolved | None = None
    documents: dict[Path, Any] = field(default_factory=dict)


def review(answers: Answers, extra: Mapping[str, str], around: Surroundings) -> Review:
    """Judge the answers (those that are missing count as their defaults) and the further keys of `--set`."""
    filled = complete(answers, around)
    try:
        resolved = resolve({**_config(filled), **extra}, [_dataset(filled)])
        resolved.require_supported()
        documents = _documents(filled, extra, resolved, around)
        if not around.guide:
            parse(documents[Path(FILE)])
            if filled["class"] != gpus.AUTO:
                gpus.find(filled["class"])
        inputs.read_model(resolved, Workspace(around.workspace))
    except ConfigError as error:
        return Review(error.problems)
    except NoInputError as error:
        where, _, what = str(error).partition(": ")
        return Review((Problem(where, what),))
    return Review((), tuple(str(each) for each in resolved.corrections), resolved, documents)


def complete(answers: Answers, around: Surroundings) -> dict[str, str]:
    """All answers, with defaults for those that are not given."""
    filled: dict[str, str] = {}
    for question in QUESTIONS:
        given = answers.get(question.key)
        if given is None:
            given = question.default(filled, around) if question.asked(filled, around) else ""
        filled[question.key] = given
    return filled


def canonical(key: str) -> str:
    """A key of config.json by its own name."""
    return TRAINING.aliases.get(key, key)


def concerns(problem: Problem, question: Question) -> bool:
    """Whether a problem is about a question's answer."""
    return problem.field in (question.field, question.key)


def _config(answers: Answers) -> dict[str, Any]:
    keys = (
        "pretrained_model_name_or_path", "model_flavour", "max_train_steps", "validation_prompt", "trigger_words",
        "instance_prompt",
    )  # fmt: skip
    return {key: answers[key] for key in keys if answers[key]}


def _dataset(answers: Answers) -> dict[str, Any]:
    return {
        "id": "clips",
        "type": "local",
        "dataset_type": "video",
        "instance_data_dir": answers["instance_data_dir"],
        "caption_strategy": answers["caption_strategy"],
        "resolution": answers["resolution"],
        "video": {"num_frames": answers["num_frames"]},
    }


def _documents(answers: Answers, extra: Mapping[str, str], resolved: Resolved, around: Surroundings) -> dict[Path, Any]:
    """The files as JSON values, by their place in the workspace: what was typed, as the models understood it."""
    training, (clips, *_) = resolved.training.model_dump(mode="json"), resolved.clips
    config = {key: training[key] for key in _config(answers)}
    config |= {key: training[key] for key in map(canonical, extra) if key in training}
    dataset = {
        **_dataset(answers),
        "caption_strategy": clips.caption_strategy,
        "resolution": int(clips.resolution) if clips.resolution == int(clips.resolution) else clips.resolution,
        "video": {"num_frames": clips.video.num_frames},
    }
    if around.guide:
        where = {"data_backend_config": GUIDE_DATASETS.as_posix(), "output_dir": f"runs/{answers['name']}"}
        return {GUIDE_DATASETS: [dataset], GUIDE_CONFIG: {**config, **where}}
    body = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": answers["name"]},
        "spec": {"gpu": {"class": answers["class"]}, "config": config, "datasets": [dataset]},
    }
    return {Path(FILE): body}
