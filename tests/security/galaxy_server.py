"""A Galaxy server with one collection, as ansible-galaxy asks for it (API v3); on loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COLLECTION = "/api/v3/collections/lockstep/vllm/"


class Galaxy(ThreadingHTTPServer):
    def __init__(self, tarball: Path, version: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tarball, self.version = tarball, version

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/"

    def pages(self) -> dict[str, dict[str, Any]]:
        content = self.tarball.read_bytes()
        versions = f"{COLLECTION}versions/"
        one = {"version": self.version, "href": f"{versions}{self.version}/"}
        return {
            "/api/": {"available_versions": {"v3": "v3/"}},
            COLLECTION: {"highest_version": one, "versions_url": versions},
            versions: {"meta": {"count": 1}, "links": {"next": None}, "data": [one]},
            one["href"]: {
                **one,
                "namespace": {"name": "lockstep"},
                "collection": {"name": "vllm"},
                "name": "vllm",
                "download_url": f"{self.url}download/{self.tarball.name}",
                "artifact": {"sha256": hashlib.sha256(content).hexdigest(), "filename": self.tarball.name},
                "metadata": {"dependencies": {}},
                "signatures": [],
            },
        }


class Handler(BaseHTTPRequestHandler):
    server: Galaxy

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/download/"):
            self.answer(200, self.server.tarball.read_bytes(), "application/gzip")
        elif (page := self.server.pages().get(path)) is not None:
            self.answer(200, json.dumps(page).encode())
        else:
            self.answer(404, b"{}")

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The tests print nothing of their own."""


@contextmanager
def offering(tarball: Path, version: str) -> Iterator[Galaxy]:
    with Galaxy(tarball, version) as galaxy:
        thread = threading.Thread(target=galaxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield galaxy
        finally:
            galaxy.shutdown()
            thread.join()
