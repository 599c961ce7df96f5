"""`ltx2-job look`: is everything there that a run needs from the volume? Asked by a pod that holds no GPU. Torch-free.

It writes nothing but its last word into the termination log: no fence is taken and no folder is made, so that it may
run as often as it likes.
"""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltx2_job import exitcodes
from ltx2_job.discover import find_clips
from ltx2_job.endings import ending
from ltx2_job.errors import StorageError
from ltx2_job.finished import finished
from ltx2_job.hub.snapshot import NotDownloaded, Snapshots
from ltx2_job.mirror.bring import require as require_clips
from ltx2_job.mirror.place import is_remote
from ltx2_job.progress import VERSION, ending_fields, timestamp, write_last_word
from ltx2_job.resumption import find_origin, require_fitting
from ltx2_job.same_run import UNNAMED_CHECKPOINTS, require_same
from ltx2_job.stage import StopFlag, read_files
from ltx2_job.workspace import RunFolder, Workspace

if TYPE_CHECKING:
    from ltx2_job.config import Resolved
    from ltx2_job.supervise import Order


def look(order: "Order", environ: Mapping[str, str] = os.environ) -> int:
    """Look, say how it was, and return the exit code.

    0: the stages may begin, or (with a result in the last word) this very run lies finished there. 66: something is not
    there yet. 73: the volume cannot be written. 78: the run's folder is another configuration's, or what to go on from
    is not there.
    """
    stop = StopFlag()
    stop.install()
    result: dict[str, Any] = {}
    try:
        resolved, _ = read_files(order.files, order.workspace)
        place = Workspace(order.workspace)
        run = place.run(order.run, resolved.training.output_dir)
        result = finished(run, resolved.digest) or {}
        if not result:
            require(resolved, place, run, stop)
        code, message = exitcodes.OK, "finished before" if result else "everything is there"
    except BaseException as error:  # every way out has a code, as in a stage
        end = ending(error, order.workspace)
        code, message = end.code, end.message
    print(message if code == exitcodes.OK else f"error: {message}", file=sys.stderr, flush=True)
    log = environ.get("LTX2JOB_TERMINATION_LOG")
    steps = result.get("steps") if isinstance(result.get("steps"), int) else 0
    page = {
        "version": VERSION,
        "run": order.run,
        "uid": environ.get("LTX2JOB_UID", ""),
        "attempt": order.attempt,
        "stage": order.stage,
        "step": steps,
        "maxSteps": steps,
        "time": timestamp(),
        **ending_fields(code, message),
        "result": result,
    }
    with contextlib.suppress(OSError):  # the exit code itself is the message that cannot be lost
        write_last_word(page, Path(log) if log else None, None, order.attempt)
    return code


def require(resolved: "Resolved", place: Workspace, run: RunFolder, stop: StopFlag) -> None:
    """Raise for the first thing that the volume lacks.

    Datasets that lie elsewhere are asked for one clip. Raises StorageError, ConfigError, NoInputError (clips, or a
    model that a path names, are not there yet), AuthError, UnavailableError, Stopped.
    """
    if not os.access(place.root, os.W_OK | os.X_OK):
        raise StorageError(
            f"{place.root}: not writable by user {os.geteuid()}; make the volume writable for it (fsGroup, chown)"
        )
    reference = resolved.training.resume_from_checkpoint
    require_same(run, resolved.dump(), reference)
    if reference not in UNNAMED_CHECKPOINTS:
        require_fitting(find_origin(reference, run, place).path, resolved.training)
    for dataset in resolved.clips:
        stop.check()
        if is_remote(dataset):
            require_clips(dataset, run)
        else:
            find_clips(place.resolve(dataset.instance_data_dir or ""), str(dataset.instance_data_dir))
    with contextlib.suppress(NotDownloaded):  # the cache stage downloads it
        Snapshots(place, run).find(resolved.training)
