"""What `ltx2 doctor` says: one finding a line, and how long it waits for anybody's answer."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Status = Literal["ok", "note", "fix"]
ANSWER_SECONDS: Final = 5.0  # of one connection
AREA_SECONDS: Final = 12.0  # of everything that one area asks over the network, name look-ups included


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    status: ok; note (nothing is broken, but it limits what can be done); fix (what was asked for will fail). remedy:
    what to do, empty where there is nothing to do.
    """

    area: str
    status: Status
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status:4}  {self.area:9} {self.message}" + (f"; {self.remedy}" if self.remedy else "")


def within(seconds: float, area: str, look: Callable[[], list[Finding]], remedy: str) -> list[Finding]:
    """The findings of `look`, or a note that it has not answered in time: a name server may hang for minutes.

    The thread that hangs is left behind; it ends with the process.
    """
    answers: queue.SimpleQueue[list[Finding] | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(look())
        except BaseException as error:
            answers.put(error)

    threading.Thread(target=work, name=f"doctor-{area}", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        return [Finding(area, "note", f"no answer within {seconds:g} seconds", remedy)]
    if isinstance(answer, BaseException):
        raise answer
    return answer
