"""A way from an operator to the API server that knows every request, and can stop or hold any of them.

Plain HTTP on the loopback towards the operator, the server's own TLS behind; the operator's token is passed on.
"""

import contextlib
import http.client
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


class Broken(Exception):
    """Raised by a hook: the connection ends without an answer."""


@dataclass
class Request:
    """One request that is no watch. words: what it is, without names that differ from run to run; occurrence: the
    how-manieth of these words, from 1; code: the server's answer, 0 before there is one.
    """

    words: str
    occurrence: int
    code: int = 0

    @property
    def point(self) -> tuple[str, int]:
        """What is the same in another run."""
        return self.words, self.occurrence


Hook = Callable[[Request], None]


class Proxy:
    """In front of one API server. before, after: called with each request before it is forwarded, and when the server
    has answered but the operator has not heard; they may block, and raise Broken.
    """

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        """kubeconfig: the operator's for the way without a proxy."""
        self.config = json.loads(kubeconfig.read_text())
        server = self.config["clusters"][0]["cluster"]
        self._context = ssl.create_default_context(cafile=str(kubeconfig.parent / "ca.crt"))
        self._target = urlsplit(server["server"])
        self._namespace = namespace
        self._times: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.before: Hook = lambda request: None
        self.after: Hook = lambda request: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kubeconfig(self, folder: Path) -> Path:
        """The same user's, through this proxy."""
        cluster = {"name": "ltx2", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        path = folder / f"proxy-{self.port}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps({**self.config, "clusters": [cluster]}))
        return path

    def close(self) -> None:
        """No further request is taken."""
        self._server.shutdown()
        self._server.server_close()

    def came(self, method: str, target: str, body: bytes) -> Request:
        """Number a request."""
        words = wording(method, target, body, self._namespace)
        with self._lock:
            self._times[words] += 1
            request = Request(words, self._times[words])
            self.requests.append(request)
        return request

    def connect(self) -> http.client.HTTPSConnection:
        """A connection of its own to the server."""
        return http.client.HTTPSConnection(self._target.hostname or "", self._target.port, context=self._context)


def wording(method: str, target: str, body: bytes, namespace: str) -> str:
    """What a request is: PATCH ltx2trainings/fox/status ltx2-operator."""
    url = urlsplit(target)
    parts = [part for part in url.path.split("/") if part not in ("", "namespaces", namespace)]
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[0] == "events":
        parts = ["events"]  # their names are hashes of the object's uid
    query = dict(parse_qsl(url.query))
    found = json.loads(body) if body.startswith(b"{") else {}
    more = [query.get("fieldManager", "") if method == "PATCH" else "", "dry run" if "dryRun" in query else ""]
    more += ["selected" if {"labelSelector", "fieldSelector"} & set(query) else ""]
    if method == "POST":
        more.append(str(found.get("reason") or (found["metadata"]["name"] if parts[0] == "jobs" else "")))
    return " ".join([method, "/".join(parts), *filter(None, more)])


def is_watch(target: str) -> bool:
    """Whether the answer lasts."""
    return dict(parse_qsl(urlsplit(target).query)).get("watch") == "true"


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            self.far = proxy.connect()

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # of an operator that was killed
                super().handle()

        def finish(self) -> None:
            self.far.close()
            with contextlib.suppress(OSError):
                super().finish()

        def pass_on(self) -> None:
            self.close_connection = True
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP_BY_HOP}
            with contextlib.suppress(Broken, OSError, http.client.HTTPException):
                if is_watch(self.path):
                    self._stream(self._ask(body, headers))
                    return
                request = proxy.came(self.command, self.path, body)
                proxy.before(request)
                answer = self._ask(body, headers)
                data = answer.read()
                request.code = answer.status
                proxy.after(request)
                self._head(answer, {"Content-Length": str(len(data))})
                self.wfile.write(data)
                self.close_connection = False

        def _ask(self, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
            self.far.request(self.command, self.path, body or None, headers)
            return self.far.getresponse()

        def _head(self, answer: http.client.HTTPResponse, more: dict[str, str]) -> None:
            self.send_response_only(answer.status)
            kept = {key: value for key, value in answer.getheaders() if key.lower() not in HOP_BY_HOP}
            for key, value in {**kept, **more}.items():
                self.send_header(key, value)
            self.end_headers()

        def _stream(self, answer: http.client.HTTPResponse) -> None:
            self._head(answer, {"Transfer-Encoding": "chunked"})
            while data := answer.read1(1 << 16):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.pass_on)
    return Handler
