"""An S3-compatible object store over real HTTP: moto's server, with faults in front of it.

moto is written by others and knows nothing of this project; the faults are what it has no way to do: refused keys,
bodies that break off, an answer that is no store's.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from moto.server import create_backend_app
from werkzeug.serving import make_server

# What a process needs to be let in, and to look for keys nowhere but here.
ENVIRON = {
    "AWS_ACCESS_KEY_ID": "OFTHISTEST", "AWS_SECRET_ACCESS_KEY": "of-this-test", "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_CONFIG_FILE": "/nonexistent",
}  # fmt: skip
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>no</Message></Error>"


@dataclass
class ObjectStore:
    """The running store. requests: (method, path, query, Range) of each; sent: bytes of bodies by path.

    faults: what answers the next requests, (status, body). cuts: object's path -> bytes after which its next body
    breaks off. hold: object's path -> bytes after which its next body waits for `go`.
    """

    url: str = ""
    client: Any = None  # for what a test puts there
    requests: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    cuts: dict[str, int] = field(default_factory=dict)
    hold: dict[str, int] = field(default_factory=dict)
    held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    signatures: list[str] = field(default_factory=list)  # the Authorization header of each request, or ""

    def put(self, bucket: str, objects: dict[str, bytes | str]) -> None:
        """Make the bucket, and put objects by key."""
        client = self.client
        client.create_bucket(Bucket=bucket)
        for key, data in objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=data)
        self._forget()

    def put_folder(self, bucket: str, folder: Path, prefix: str) -> None:
        """Every file below a folder, under a prefix."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self.put(bucket, {f"{prefix}{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files})

    def remove(self, bucket: str, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=bucket, Key=key)
        self._forget()

    def clear(self) -> None:
        """Remove every bucket."""
        client = self.client
        for bucket in client.list_buckets()["Buckets"]:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
                for entry in page.get("Contents", []):
                    client.delete_object(Bucket=bucket["Name"], Key=entry["Key"])
            client.delete_bucket(Bucket=bucket["Name"])
        self._forget()

    def signers(self) -> set[str | None]:
        """Whose keys signed the requests since the last look; None for those without a signature."""
        found = {_part(each, 0) for each in self.signatures}
        self._forget()
        return found

    def regions(self) -> set[str | None]:
        """The regions that the requests since the last look were signed for."""
        found = {_part(each, 2) for each in self.signatures}
        self._forget()
        return found

    def _forget(self) -> None:
        self.requests.clear()
        self.signatures.clear()

    def fetched(self) -> list[str]:
        """The keys whose bytes were asked for, with the bucket before them."""
        read = [(path, query) for method, path, query, _ in self.requests if method == "GET"]
        return [path.strip("/") for path, query in read if "list-type" not in query]


def _part(signature: str, index: int) -> str | None:
    """A part of a signature's scope: key / day / region / service / request."""
    _, found, scope = signature.partition("Credential=")
    return scope.split(",")[0].split("/")[index] if found else None


def _body(store: ObjectStore, path: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    data = b"".join(chunks)
    if path in store.hold:
        first = store.hold.pop(path)
        store.sent[path] += first
        yield data[:first]
        store.held.set()
        store.go.wait(60)
        data = data[first:]
    if path in store.cuts:
        data = data[: store.cuts.pop(path)]
        store.sent[path] += len(data)
        yield data
        raise ConnectionError("cut")
    store.sent[path] += len(data)
    yield data


def _in_front(store: ObjectStore, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        query = environ.get("QUERY_STRING", "")
        store.requests.append((environ["REQUEST_METHOD"], path, query, environ.get("HTTP_RANGE")))
        store.signatures.append(environ.get("HTTP_AUTHORIZATION", ""))
        if store.faults:
            status, body = store.faults.pop(0)
            start(f"{status} Fault", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body.encode()]
        chunks = app(environ, start)
        return _body(store, path, chunks) if environ["REQUEST_METHOD"] == "GET" else chunks

    return answer


@contextmanager
def serve() -> Iterator[ObjectStore]:
    """A running store with no bucket. All stores of a process show the same buckets: end one before the next."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # `requests` keeps them
    store = ObjectStore()
    app = _in_front(store, create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    session = boto3.session.Session("x", "x", region_name="us-east-1")
    store.client = session.client("s3", endpoint_url=store.url)
    try:
        yield store
    finally:
        store.go.set()
        store.faults.clear()
        store.clear()
        server.shutdown()
        server.server_close()
        thread.join()
