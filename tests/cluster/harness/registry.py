"""A registry that nodes pull from: serves a cluster's folder of images, reads only, listens inside the namespace only.

The nodes ask it for every image, whatever registry the image's name holds; what it does not have cannot be pulled.
"""

import shutil
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from . import images

PORT = 5000


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *arguments: object) -> None:
        print(format % arguments, flush=True)

    def _answer(self, body: bool) -> None:
        url = urlsplit(self.path)
        words = url.path.strip("/").split("/")
        registry = parse_qs(url.query).get("ns", [f"127.0.0.1:{PORT}"])[0]
        found = None
        if len(words) >= 4 and words[-2] == "manifests":
            found = images.find_manifest(self.folder, registry, "/".join(words[1:-2]), words[-1])
        elif len(words) >= 4 and words[-2] == "blobs":
            file = images.blob_file(words[-1])
            found = (words[-1], "application/octet-stream", file) if file.exists() else None
        if found is None:
            self.send_response(200 if words == ["v2"] else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        digest, kind, file = found
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Docker-Content-Digest", digest)
        self.send_header("Content-Length", str(file.stat().st_size))
        self.end_headers()
        if body:
            with file.open("rb") as content:
                shutil.copyfileobj(content, self.wfile, 1 << 20)


def main(folder: Path) -> None:
    """Serve until ended."""
    _Handler.folder = folder
    ThreadingHTTPServer(("127.0.0.1", PORT), _Handler).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
