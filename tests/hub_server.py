"""A stand-in of the Hub over real HTTP: its interface, its errors, and the storage that large files are redirected to.

Built from the public description of the interface. The storage listens on a port of its own, as the Hub's does on a
host of its own, so that a token which leaks there is seen.
"""

import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_goodTokenOfThisTest"
SETS = "datasets/"  # before the names of data set repositories, which share nothing with those of models
LARGE = 4096  # bytes from which a file lies in the storage


def commit_of(files):
    """A commit that depends on the content, 40 hexadecimal digits."""
    return hashlib.sha1(json.dumps({name: _sha256(data) for name, data in files.items()}).encode()).hexdigest()


@dataclass
class Repo:
    """Files by commit, commits by name; `open_to`: tokens that may read it, None for everybody."""

    commits: dict = field(default_factory=dict)
    names: dict = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    open_to: tuple = (TOKEN,)
    listed: dict = field(default_factory=dict)  # path -> changes of its entry in the listing


class Hub:
    """The running stand-in. Every request is kept as (method, path, range, status); `sent` counts bytes of bodies."""

    def __init__(self):
        self.repos, self.requests, self.sent = {}, [], Counter()
        self.faults = []  # statuses for the next requests of any kind
        self.cuts = {}  # file name -> list of byte counts after which its next bodies break off
        self.corrupt = set()  # file names whose bytes come wrong
        self.ranges = True
        self.hold = {}  # file name -> bytes after which a body waits for `go`
        self.held, self.go = threading.Event(), threading.Event()
        self.leaked = []  # Authorization headers that reached the storage
        self.lock = threading.Lock()
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, kind)) for kind in ("hub", "storage")]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url, self.storage = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def add(self, name, files, *, main=True, **options):
        """A commit of a repository; the newest is `main`. Returns its commit."""
        repo = self.repos.setdefault(name, Repo())
        for key, value in options.items():
            setattr(repo, key, value)
        commit = commit_of(files)
        repo.commits[commit] = dict(files)
        if main:
            repo.names["main"] = commit
        return commit

    def asked(self, text):
        """The requests whose path holds a text."""
        return [request for request in self.requests if text in request[1]]

    def close(self):
        """Stop answering; held bodies go on."""
        self.go.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _is_large(path, data):
    return len(data) >= LARGE or path.endswith(".safetensors")


def _handler(hub, kind):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        status = 0

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self._serve()

        def do_GET(self):
            self._serve()

        def _serve(self):
            self.path_, self.status = unquote(urlsplit(self.path).path), 0
            try:
                if hub.faults and kind == "hub":
                    return self._error(hub.faults.pop(0), None, "try later")
                if kind == "storage":
                    return self._storage()
                parts = self.path_.strip("/").split("/")
                if parts[:2] in (["api", "models"], ["api", "datasets"]):
                    return self._listing(SETS * (parts[1] == "datasets") + "/".join(parts[2:4]), "/".join(parts[5:]))
                if parts[0] == "datasets":
                    parts[:3] = ["/".join(parts[:2]), parts[2]]
                if len(parts) > 4 and parts[2] == "resolve":
                    return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
                return self._error(404, None, "no such page")
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _listing(self, name, revision):
            repo = self._repo(name)
            if repo is None:
                return None
            commit = repo.names.get(revision, revision)
            if commit not in repo.commits:
                return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            siblings = []
            for path, data in repo.commits[commit].items():
                entry = {"rfilename": path, "size": len(data), "blobId": _blob(data)}
                if _is_large(path, data):
                    entry["lfs"] = {"sha256": _sha256(data), "size": len(data), "pointerSize": 134}
                changes = dict(repo.listed.get(path, {}))
                if "size" in changes and "lfs" in entry:
                    entry["lfs"]["size"] = changes["size"]
                siblings.append(entry | changes)
            page = {"id": name, "modelId": name, "sha": commit, "gated": "manual" if repo.gated else False}
            return self._answer(200, json.dumps(page | {"siblings": siblings}).encode(), "application/json")

        def _resolve(self, name, revision, path):
            repo = self._repo(name)
            if repo is None:
                return None
            token = self._token()
            if repo.gated and token not in repo.open_to:
                return self._error(403 if token else 401, "GatedRepo", "Access to model is restricted.")
            commit = repo.names.get(revision, revision)
            data = repo.commits.get(commit, {}).get(path)
            if data is None:
                return self._error(404, "EntryNotFound", "Entry not found")
            linked = {"X-Repo-Commit": commit, "X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{_sha256(data)}"'}
            if _is_large(path, data):
                location = f"{hub.storage}/{name}/{commit}/{path}"
                return self._answer(302, b"", "text/plain", linked | {"Location": location, "ETag": f'"{_blob(data)}"'})
            return self._body(path, data, {"X-Repo-Commit": commit, "ETag": f'"{_blob(data)}"'})

        def _storage(self):
            if self.headers.get("Authorization"):
                hub.leaked.append(self.headers["Authorization"])
            parts = self.path_.strip("/").split("/")
            size = 3 if parts[0] == "datasets" else 2
            name, commit, path = "/".join(parts[:size]), parts[size], "/".join(parts[size + 1 :])
            data = hub.repos[name].commits[commit][path]
            return self._body(path, data, {"ETag": f'"{_sha256(data)}"'})

        def _body(self, path, data, headers):
            wanted, status, begin = self.headers.get("Range"), 200, 0
            if path in hub.corrupt:
                data = bytes([data[0] ^ 1]) + data[1:]
            if wanted and hub.ranges:
                begin = int(wanted.removeprefix("bytes=").rstrip("-"))
                if begin >= len(data):
                    return self._error(416, None, "range")
                status, headers = 206, headers | {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"}
            body = data[begin:]
            self._head(status, headers | {"Content-Length": str(len(body)), "Accept-Ranges": "bytes"})
            if self.command == "HEAD":
                return None
            if path in hub.hold:
                self._write(path, body[: hub.hold[path]])
                body = body[hub.hold.pop(path) :]
                hub.held.set()
                hub.go.wait(60)
            if hub.cuts.get(path):
                self._write(path, body[: hub.cuts[path].pop(0)])
                self.close_connection = True
                return None
            return self._write(path, body)

        def _write(self, path, data):
            with hub.lock:
                hub.sent[path] += len(data)  # before a client can have seen any of it
            self.wfile.write(data)
            self.wfile.flush()

        def _repo(self, name):
            token, repo = self._token(), hub.repos.get(name)
            if token and token not in {TOKEN, *(repo.open_to if repo else ())} and not token.startswith("hf_stranger"):
                self._error(401, None, "Invalid credentials in Authorization header")
            elif repo is None or (repo.private and token not in repo.open_to):
                self._error(404 if token else 401, "RepoNotFound", "Repository not found")
            else:
                return repo
            return None

        def _token(self):
            return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

        def _error(self, status, code, message):
            headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
            self._answer(status, json.dumps({"error": message}).encode(), "application/json", headers)

        def _answer(self, status, body, kind_, headers=None):
            self._head(status, {"Content-Type": kind_, "Content-Length": str(len(body))} | (headers or {}))
            if self.command != "HEAD":
                self.wfile.write(body)

        def _head(self, status, headers):
            with hub.lock:
                hub.requests.append((self.command, self.path_, self.headers.get("Range"), status))
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()

    return Handler
