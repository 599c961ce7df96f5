"""An S3-compatible object store over real HTTP: moto's server, with faults in front of it.

moto is written by others and knows nothing of this project; the faults are what it has no way to do: refused keys,
bodies that break off, an answer that is no store's.
"""

from __future__ import annotations

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

KEYS = {"AWS_ACCESS_KEY_ID": "of-this-test", "AWS_SECRET_ACCESS_KEY": "of-this-test"}
ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>no</Message></Error>"


@dataclass
class ObjectStore:
    """The running store. requests: (method, path, query, Range) of each; sent: bytes of bodies by path.

    faults: what answers the next requests, (status, body). cuts: object's path -> bytes after which its next body breaks
    off. hold: object's path -> bytes after which its next body waits for `go`.
    """

    url: str = ""
    requests: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    cuts: dict[str, int] = field(default_factory=dict)
    hold: dict[str, int] = field(default_factory=dict)
    held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    signed: list[bool] = field(default_factory=list)

    @property
    def client(self) -> Any:
        """A client of the store, for what a test puts there."""
        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )

    def put(self, bucket: str, objects: dict[str, bytes | str]) -> None:
        """Make the bucket, and put objects by key."""
        client = self.client
        client.create_bucket(Bucket=bucket)
        for key, data in objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=data)
        self.requests.clear()

    def put_folder(self, bucket: str, folder: Path, prefix: str) -> None:
        """Every file below a folder, under a prefix."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self.put(bucket, {f"{prefix}{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files})

    def remove(self, bucket: str, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=bucket, Key=key)
        self.requests.clear()

    def fetched(self) -> list[str]:
        """The keys whose bytes were asked for, with the bucket before them."""
        return [path.strip("/") for method, path, query, _ in self.requests if method == "GET" and "list-type" not in query]


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
        store.signed.append("HTTP_AUTHORIZATION" in environ)
        if store.faults:
            status, body = store.faults.pop(0)
            start(f"{status} Fault", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body.encode()]
        chunks = app(environ, start)
        return _body(store, path, chunks) if environ["REQUEST_METHOD"] == "GET" else chunks

    return answer


@contextmanager
def serve() -> Iterator[ObjectStore]:
    """A running store with no bucket."""
    store = ObjectStore()
    app = _in_front(store, create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield store
    finally:
        store.go.set()
        for bucket in store.client.list_buckets()["Buckets"]:
            _empty(store, bucket["Name"])
        server.shutdown()
        server.server_close()
        thread.join()


def _empty(store: ObjectStore, bucket: str) -> None:
    """moto keeps its buckets for the whole process; the next test begins with none."""
    client = store.client
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            client.delete_object(Bucket=bucket, Key=entry["Key"])
    client.delete_bucket(Bucket=bucket)
