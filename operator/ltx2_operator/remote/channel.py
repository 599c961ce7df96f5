"""A command in a pod as a pipe of bytes: exec over a WebSocket.

The official client opens the socket (TLS, proxies, credentials) but keeps all that it has read in memory, so the frames
are read here: the first byte names a channel (0 standard input, 1 output, 2 error, 3 how the command ended).
"""

import json
import select
import ssl
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from kubernetes.client import ApiClient
from kubernetes.stream.ws_client import create_websocket, get_websocket_url
from websocket import ABNF, WebSocketBadStatusException, WebSocketException, WebSocketTimeoutException

from ltx2_job.errors import AuthError, UnavailableError
from ltx2_job.exitcodes import USAGE
from ltx2_job.transfer import OtherVersionError
from ltx2_operator.remote.access import Cluster, core

SILENCE: Final = 600.0  # seconds without a byte after which the other side counts as gone
STDIN, STDOUT, STDERR, ENDED = range(4)
STDERR_KEPT: Final = 4096


class Exec:
    """A pipe (ltx2_job.transfer.Pipe) to a command that runs in a container of a pod."""

    def __init__(self, cluster: Cluster, pod: str, container: str, command: Sequence[str]) -> None:
        """Start the command. Raises AuthError, UnavailableError."""
        path, headers = f"{core(cluster, 'pods', pod)}/exec", dict[str, str]()
        ApiClient(cluster.configuration).update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        flags = [("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
        query = urlencode([*flags, *(("command", word) for word in command)])
        try:
            self._socket = create_websocket(
                cluster.configuration, get_websocket_url(f"{cluster.configuration.host}{path}?{query}"), headers
            )
        except WebSocketBadStatusException as error:
            if error.status_code in (401, 403):
                text = "you may not run commands in pods here; ask for the verbs get and create on pods/exec"
                raise AuthError(f"pod {pod}: {text}") from None
            raise UnavailableError(f"pod {pod}: no command can be run in it: {error}") from None
        except (WebSocketException, OSError) as error:
            raise UnavailableError(f"pod {pod}: no command can be run in it: {error}") from None
        self._socket.settimeout(SILENCE)
        self._said = b""

    def write(self, data: bytes) -> None:
        """Give bytes to the command's standard input. Raises OSError where it has gone."""
        try:
            self._socket.send_binary(bytes([STDIN]) + data)
        except WebSocketException as error:
            raise BrokenPipeError(str(error)) from None

    def read(self) -> bytes:
        """Bytes of its standard output, b"" after its end.

        Raises UnavailableError where it ended badly, OtherVersionError where it does not know its verb or flags.
        """
        while True:
            try:
                code, frame = self._socket.recv_data_frame(True)
            except WebSocketTimeoutException:
                raise UnavailableError(f"nothing came from the pod for {SILENCE:.0f} s; run it again") from None
            except (WebSocketException, OSError):
                return b""
            if code == ABNF.OPCODE_CLOSE:
                return b""
            if code != ABNF.OPCODE_BINARY or len(frame.data) < 2:
                continue
            channel, data = frame.data[0], frame.data[1:]
            if channel == STDOUT:
                return bytes(data)
            if channel == STDERR:
                self._said = (self._said + data)[-STDERR_KEPT:]
            elif channel == ENDED:
                self._ended(data)
                return b""

    def ready(self) -> bool:
        """Whether `read` would find something at once."""
        inner = self._socket.sock
        if isinstance(inner, ssl.SSLSocket) and inner.pending():
            return True
        return bool(select.select([inner], [], [], 0)[0])

    def close(self) -> None:
        """Leave; the command sees the end of its input."""
        self._socket.close(timeout=1)

    def _ended(self, data: bytes) -> None:
        status = json.loads(data)
        if status.get("status") != "Success":
            last = self._said.decode(errors="replace").strip().rpartition("\n")[2]
            causes = (status.get("details") or {}).get("causes") or []
            if {"reason": "ExitCode", "message": str(USAGE)} in causes:
                raise OtherVersionError(last)
            raise UnavailableError(f"the command in the pod failed: {last or status.get('message')}")
