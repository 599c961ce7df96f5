"""Lets this machine's loopback reach the API server inside the namespace; runs inside, listens outside.

A socket belongs to the network it was made in: the listening one is made before this process changes its network.
"""

import asyncio
import ctypes
import os
import socket
import sys
from pathlib import Path

_CLONE_NEWNET = 0x40000000


async def _serve(listening: socket.socket, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))

    server = await asyncio.start_server(connected, sock=listening)
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def main(port: int, announce: Path) -> None:
    """Forward a free port of the machine's loopback to `port` inside; the free one's number is written to a file."""
    listening = socket.create_server(("127.0.0.1", 0))
    network = os.open("/proc/1/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(network, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    unfinished = announce.with_suffix(".new")
    unfinished.write_text(str(listening.getsockname()[1]))
    unfinished.rename(announce)
    asyncio.run(_serve(listening, port))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
