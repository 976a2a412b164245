"""A vulnerability database as OSV's API gives it, of the advisories that are recorded beside this file; on loopback.

What it answers: ``POST /v1/query`` (asked by pip-audit), ``POST /v1/querybatch`` and ``GET /v1/vulns/<id>`` (asked by uv).
https://google.github.io/osv.dev/api/
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from packaging.version import Version

RECORDED = tuple(json.loads(path.read_text()) for path in sorted(Path(__file__).with_name("advisories").glob("*.json")))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def affects(advisory: dict[str, Any], name: str, version: str) -> bool:
    """Whether a version lies in one of the advisory's ranges. https://ossf.github.io/osv-schema/#evaluation"""
    found = Version(version)
    for affected in advisory["affected"]:
        if canonical(affected["package"]["name"]) != canonical(name):
            continue
        for events in (span["events"] for span in affected["ranges"]):
            inside = False
            for event in events:
                (kind, at), *_ = event.items()
                if found >= Version(at):
                    inside = kind == "introduced"
            if inside:
                return True
    return False


class Database(ThreadingHTTPServer):
    def __init__(self, advisories: Sequence[dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.advisories = advisories
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def matches(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        assert query["package"]["ecosystem"] == "PyPI"
        name, version = query["package"]["name"], query["version"]
        self.asked.append((canonical(name), version))
        return [advisory for advisory in self.advisories if affects(advisory, name, version)]


class Handler(BaseHTTPRequestHandler):
    server: Database
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment: no 40 ms for every answer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/query":
            self.answer({"vulns": found} if (found := self.server.matches(body)) else {})
        elif self.path == "/v1/querybatch":
            results = [
                {"vulns": [{"id": one["id"], "modified": one["modified"]} for one in self.server.matches(query)]}
                for query in body["queries"]
            ]
            self.answer({"results": results})
        else:
            self.answer({"code": 5, "message": "Not Found"}, 404)

    def do_GET(self) -> None:
        found = [one for one in self.server.advisories if self.path == f"/v1/vulns/{one['id']}"]
        self.answer(found[0]) if found else self.answer({"code": 5, "message": "Bug not found."}, 404)

    def answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """The tests print nothing of their own."""


@contextmanager
def serving(*advisories: dict[str, Any]) -> Iterator[Database]:
    with Database(advisories) as database:
        thread = threading.Thread(target=database.serve_forever, daemon=True)
        thread.start()
        try:
            yield database
        finally:
            database.shutdown()
            thread.join()
