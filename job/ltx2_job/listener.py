"""An HTTP server for pages of numbers: of a pod on every interface, elsewhere on this machine alone."""

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

LOOPBACK: Final = "127.0.0.1"
EVERYWHERE: Final = ""


class Listener(ThreadingHTTPServer):
    """A thread for each request; a client that goes is no news."""

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        """Listen on `port` (0: any free one) of LOOPBACK or EVERYWHERE: over IPv6 and IPv4 where there are both.

        A cluster may have only one of the two. Raises OSError if the port cannot be had.
        """
        self._dual = host == EVERYWHERE and socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if self._dual else socket.AF_INET
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's own name, which can hang for seconds without DNS."""
        if self._dual:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = socket.gethostname(), self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say what went wrong, unless it is the client's going."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
