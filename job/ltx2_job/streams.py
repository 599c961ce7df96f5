"""Standard output and error that can take whatever is said, wherever a command was started."""

import io
import os
import sys


def open_streams() -> None:
    """See that both streams are there and can write every text.

    A stream that was closed by the caller becomes one to nowhere. One of plain ASCII (an unset or a C locale) becomes
    UTF-8, which is what terminals read; in any other encoding a character that it lacks is written as \\uNNNN.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - it stays open as long as the process
            setattr(sys, name, nowhere)
        elif isinstance(stream, io.TextIOWrapper):
            ascii_only = stream.encoding.lower() in ("ascii", "ansi_x3.4-1968", "us-ascii", "646")
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors="backslashreplace")
