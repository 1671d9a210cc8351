"""A small hub on this machine: the two requests that a pull makes, answered as the real one does, with its own client."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin")
"""Kept by LFS on the hub, which then states their SHA-256."""


@dataclass
class Hub:
    """What it serves, and what was asked of it."""

    folders: dict[str, Path]
    """Repository → its files."""
    gated: tuple[str, ...] = ()
    address: str = ""
    sent: list[tuple[str, int]] = field(default_factory=list)
    """(file, first byte) of each content that was sent."""
    asked: int = 0


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """The hub at `hub.address`, while within."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.asked += 1
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                revision = parts[5] if len(parts) > 5 else COMMIT
                self.describe("/".join(parts[2:4]), revision, as_tree="tree" in parts[4:5])
            elif len(parts) == 5 and parts[2] == "resolve":
                self.send_file("/".join(parts[:2]), parts[3], parts[4])
            else:
                self.refuse(404, "RepoNotFound")

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            """Nothing."""

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def body(self, data: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def describe(self, repository: str, revision: str, as_tree: bool) -> None:
            if repository not in hub.folders:
                self.refuse(404, "RepoNotFound")
            elif revision not in (COMMIT, "main"):
                self.refuse(404, "RevisionNotFound")
            else:
                files = [sibling(file) for file in sorted(hub.folders[repository].iterdir()) if file.name[0] != "."]
                document: Any = {"id": repository, "sha": COMMIT, "siblings": files}
                if as_tree:  # what a snapshot asks for
                    document = [
                        {"type": "file", "path": f["rfilename"], "size": f["size"], "oid": f["blobId"]} for f in files
                    ]
                self.body(json.dumps(document).encode(), Content_Type="application/json")

        def send_file(self, repository: str, revision: str, name: str) -> None:
            if repository in hub.gated:
                self.refuse(403, "GatedRepo")
                return
            data = (hub.folders[repository] / name).read_bytes()
            about = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            assert revision == COMMIT, "a pull keeps to the commit that it began with"
            if (asked := self.headers.get("Range")) is None:
                first = 0
                if self.command == "GET":
                    hub.sent.append((name, first))
                self.body(data, **about)
                return
            first = int(asked.removeprefix("bytes=").partition("-")[0])
            hub.sent.append((name, first))
            self.body(data[first:], 206, **about, Content_Range=f"bytes {first}-{len(data) - 1}/{len(data)}")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def sibling(file: Path) -> dict[str, Any]:
    """One file of a repository as the hub lists it."""
    data = file.read_bytes()
    if file.name.endswith(LARGE):
        lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return {"rfilename": file.name, "size": len(data), "blobId": "0" * 40, "lfs": lfs}
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return {"rfilename": file.name, "size": len(data), "blobId": blob}
