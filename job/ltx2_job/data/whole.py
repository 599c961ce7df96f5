"""Whether a file holds all the bytes that its container promises. Standard library only.

A half-copied or half-downloaded clip often plays up to its end; only the lengths that mp4, mov, mkv, webm and avi write
into themselves tell that the rest is missing.
"""

import os
from typing import BinaryIO, Final

_EBML: Final = b"\x1a\x45\xdf\xa3"  # RFC 8794: the first element of Matroska and WebM
_SEGMENT: Final = b"\x18\x53\x80\x67"  # RFC 9559: the element that holds everything else
# ISO/IEC 14496-12 boxes of the top level whose loss is a loss of media.
_MEDIA: Final = frozenset({b"mdat", b"moov", b"moof"})
_FIRST: Final = frozenset({b"ftyp", b"styp", b"wide", b"free", b"skip", b"mdat", b"moov", b"pnot"})


def promised_bytes(path: str) -> int:
    """The length that the file gives itself, 0 where it tells none (other containers, live recordings).

    Not above the true length for a whole file; what an editor appended is no part of it. Raises OSError.
    """
    with open(path, "rb") as file:
        head = file.read(12)
        if head[4:8] in _FIRST:
            return _boxes(file)
        if head[:4] == _EBML:
            return _matroska(file)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return 8 + int.from_bytes(head[4:8], "little")
    return 0


def _boxes(file: BinaryIO) -> int:
    """The end of the last box that holds media, as its own header says."""
    end = place = 0
    whole = os.fstat(file.fileno()).st_size
    while place + 8 <= whole:
        file.seek(place)
        header = file.read(16)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1:  # the real size follows, in 64 bits
            size = int.from_bytes(header[8:16], "big")
        if size < 8:  # 0: up to the end of the file
            break
        place += size
        end = place if kind in _MEDIA else end
    return end


def _matroska(file: BinaryIO) -> int:
    """The end of the segment behind the EBML header; 0 if its size is unknown, as in a live recording."""
    file.seek(4)
    size = _vint(file)
    if size is None:
        return 0
    file.seek(size, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    size = _vint(file)
    return 0 if size is None else file.tell() + size


def _vint(file: BinaryIO) -> int | None:
    """A variable-length integer of EBML (RFC 8794, 4); None for the reserved value that means unknown, or the end."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value
