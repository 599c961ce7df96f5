"""Whether a Job written by hand has the form of one, so that what reads it next may rely on that.

An API server checks every object against its schema; `ltx2 run rendered.yaml` meets none. Only what a local run reads
is described here; which of it can be honoured is processes.py's question.
"""

from collections.abc import Mapping
from typing import Any, Final

from ltx2_job.errors import JobError
from ltx2_job.exitcodes import USAGE

# By key; "!" marks what must be there.
_FORM: Final[Mapping[str, Any]] = {
    "spec!": {
        "parallelism": int, "completions": int, "activeDeadlineSeconds": int,
        "podFailurePolicy": {"rules": [{"onExitCodes": {"operator!": str, "values!": [int]}}]},
        "template!": {
            "metadata": {"labels": {}, "annotations": {}},
            "spec!": {
                "terminationGracePeriodSeconds": int, "subdomain": str,
                "containers!": [
                    {
                        "command": [str], "args": [str], "workingDir": str, "terminationMessagePath": str,
                        "env": [
                            {
                                "name!": str, "value": str,
                                "valueFrom": {
                                    "fieldRef": {"fieldPath!": str}, "secretKeyRef": {"name!": str, "key!": str}
                                },
                            }
                        ],
                        "resources": {"limits": {}, "requests": {}},
                        "volumeMounts": [{"name!": str, "mountPath!": str}],
                    }
                ],
                "volumes": [
                    {
                        "name!": str, "persistentVolumeClaim": {}, "emptyDir": {},
                        "configMap": {"name!": str, "items": [{"key!": str, "path!": str}]},
                    }
                ],
            },
        },
    }
}  # fmt: skip
_WORDS: Final = {int: "a whole number", str: "a text; quote it"}


class CannotHonourError(JobError):
    """A field of a rendered Job means something that a process on this machine cannot give."""

    exit_code = USAGE

    def __init__(self, field: str, why: str = ""):
        super().__init__(f"local run cannot honour {field}" + (f": {why}" if why else ""))


def check_form(job: Mapping[str, Any]) -> None:
    """Refuse a Job of another form. Raises CannotHonourError with the first such field."""
    _formed("", job, _FORM)


def _formed(where: str, value: Any, form: Any) -> None:
    """Refuse a value of another form, by its place. Raises CannotHonourError."""
    if isinstance(form, Mapping):
        if not isinstance(value, Mapping):
            raise CannotHonourError(where, f"{value!r}; it must be a mapping")
        for key, inner in form.items():
            name = key.removesuffix("!")
            place = f"{where}.{name}".lstrip(".")
            if name in value:
                _formed(place, value[name], inner)
            elif key != name:
                raise CannotHonourError(place, "it is missing")
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise CannotHonourError(where, f"{value!r}; it must be a list")
        for index, item in enumerate(value):
            _formed(f"{where}[{index}]", item, form[0])
    elif not isinstance(value, form) or isinstance(value, bool):
        raise CannotHonourError(where, f"{value!r}; it must be {_WORDS[form]}")
