"""The operator's own port: /metrics, /healthz, /readyz."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ltx2_job.listener import EVERYWHERE, Listener

Check = Callable[[], list[str]]  # what is wrong, a line each; empty: nothing


def serve(port: int, registry: CollectorRegistry, alive: Check, ready: Check) -> Listener:
    """Answer on a port (0: any free one) until shutdown(). Raises OSError: the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds for a client that says nothing
        checks: ClassVar[dict[str, Check]] = {"/healthz": alive, "/readyz": ready}

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            elif path in self.checks:
                wrong = self.checks[path]()
                self._answer(503 if wrong else 200, ("\n".join(wrong) or "ok").encode() + b"\n", "text/plain")
            else:
                self._answer(404, b"/metrics, /healthz, /readyz\n", "text/plain")

        def _answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every few seconds."""

    server = Listener(EVERYWHERE, port, Handler)
    threading.Thread(target=server.serve_forever, name="serving", daemon=True).start()
    return server
