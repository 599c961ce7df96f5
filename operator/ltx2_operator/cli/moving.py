"""What `ltx2 upload` and `ltx2 fetch` share: the cluster that flags name, a pod with the claim, a bar, early ends."""

import contextlib
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Final

from ltx2_job.console import open_console, size_text
from ltx2_job.errors import ConfigError, Problem, Stopped, StorageError, UnavailableError
from ltx2_job.exitcodes import STORAGE
from ltx2_job.transfer import OtherVersionError, RemoteError, Tally
from ltx2_operator import __version__
from ltx2_operator.pods import WORKSPACE
from ltx2_operator.remote import pod
from ltx2_operator.remote.access import Cluster, connect
from ltx2_operator.remote.channel import Exec
from ltx2_operator.runtime.client import Body

GROW: Final = "grow the claim (`kubectl edit pvc {claim}`: spec.resources.requests.storage) or free space on it"


def cluster_of(args: Namespace) -> Cluster:
    """The cluster that --kubeconfig, --context and --namespace name. Raises ConfigError."""
    return connect(args.kubeconfig, args.context, args.namespace)


def moved_text(tally: Tally, where: str) -> str:
    """What a transfer did, as a line: `6 files (1.2 MiB) came to results/; 3 were there already`."""
    what = "1 file" if tally.files == 1 else f"{tally.files} files"
    there = f"; {tally.there} were there already" if tally.there else ""
    return f"{what} ({size_text(tally.bytes)}) came to {where}{there}"


class Bar:
    """A bar for the bytes of a transfer, on standard error."""

    def __init__(self, name: str) -> None:
        self._console, self._name = open_console(sys.stderr), name
        self._done = self._total = 0

    def line(self, text: str) -> None:
        """One event."""
        self._console.line(text)

    def coming(self, size: int) -> None:
        """`size` more bytes will come."""
        self._total += size

    def moved(self, name: str, size: int) -> None:
        """`size` bytes of the file `name` have moved."""
        self._done += size
        text = f"{size_text(self._done)} of {size_text(self._total)}, {name}"
        self._console.transfer(self._name, self._done, self._total, text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._console.close()


@contextlib.contextmanager
def command(cluster: Cluster, body: Body, words: Sequence[str], bar: Bar, claim: str) -> Iterator[Exec]:
    """A command of `ltx2-job` in a pod for as long as the body lasts.

    Raises Stopped after Ctrl-C, StorageError where the claim is full, ConfigError for an image of another version, and
    as pod.running.
    """
    try:
        with pod.running(cluster, body, bar.line) as name, _told_of_its_end(cluster, name):
            pipe = Exec(cluster, name, pod.CONTAINER, ["ltx2-job", *words, "--workspace", WORKSPACE])
            with contextlib.closing(pipe):
                yield pipe
    except KeyboardInterrupt:
        text = "interrupted; the pod is gone, what has arrived whole stays: the same command goes on from there"
        raise Stopped(text) from None
    except RemoteError as error:
        if error.exit_code == STORAGE and "no space left" in str(error):
            raise StorageError(f"claim {claim}: {error}; {GROW.format(claim=claim)}, then run this again") from None
        raise
    except OtherVersionError as error:
        image = body["spec"]["containers"][0]["image"]
        said = f"{image} is of another version than this ltx2, which is {__version__} (the pod: {error})"
        remedy = f"name an image of {__version__}, or use the ltx2 of the image's version"
        raise ConfigError(Problem("--image", said, remedy)) from None
    finally:
        bar.close()


@contextlib.contextmanager
def _told_of_its_end(cluster: Cluster, name: str) -> Iterator[None]:
    """Where nothing more comes from a pod because it has ended, why it has."""
    try:
        yield
    except OtherVersionError:
        raise
    except UnavailableError:
        pod.check_alive(cluster, name)
        raise
