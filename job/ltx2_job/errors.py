"""Errors that end a command with a code of exitcodes.py and one line for the user: where, what, and what instead."""

from collections.abc import Sequence
from dataclasses import dataclass

from ltx2_job import exitcodes


class JobError(Exception):
    """Base of every expected end. `str()` is the one line a user reads; the exit code says the class."""

    exit_code = exitcodes.SOFTWARE


class UsageError(JobError):
    """The command line is wrong."""

    exit_code = exitcodes.USAGE


@dataclass(frozen=True)
class Problem:
    """One mistake of a configuration: dotted field, what is wrong with which value, and what to write instead."""

    field: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")


class ConfigError(JobError):
    """The configuration cannot be run; carries every problem found, not only the first."""

    exit_code = exitcodes.CONFIG

    def __init__(self, problems: Sequence[Problem] | Problem):
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DataError(JobError):
    """There are clips, but none can be used."""

    exit_code = exitcodes.DATA


class NoInputError(JobError):
    """There is no clip or file yet where one is looked for."""

    exit_code = exitcodes.NO_INPUT


class CheckpointError(ConfigError):
    """A model file does not hold what LTX-2 wants; lists the tensors."""


class UnavailableError(JobError):
    """A hub, volume or peer is not reachable now."""

    exit_code = exitcodes.UNAVAILABLE


class AuthError(JobError):
    """A gated model or a refused token."""

    exit_code = exitcodes.AUTH


class StorageError(JobError):
    """A volume that is full or not writable."""

    exit_code = exitcodes.STORAGE


class GPUOutOfMemoryError(JobError):
    """The GPU's memory is exhausted under this memory plan."""

    exit_code = exitcodes.GPU_OUT_OF_MEMORY


class Stopped(JobError):  # an end, not a mistake
    """Told to stop; everything up to here is on disk."""

    exit_code = exitcodes.STOPPED


class Superseded(JobError):  # an end, not a mistake
    """A newer attempt owns this run folder."""

    exit_code = exitcodes.SUPERSEDED
