#!/usr/bin/env python3
"""Stands in for a replica behind the router where two real engines would be too heavy: reports who it is and what reached it.

usage: engine.py NAME PORT READY_PORT. Its readiness port answers 503 while /run/engine-not-ready exists; a request for
a path that ends in /slow takes three seconds.
"""

import http.server
import json
import sys
import threading
import time
from pathlib import Path

NAME, PORT, READY_PORT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
NOT_READY = Path("/run/engine-not-ready")


class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.endswith("/slow"):
            time.sleep(3)
        self.reply(200, {"replica": NAME, "path": self.path, "key": self.headers.get("Authorization")})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def reply(self, status: int, body: dict[str, object]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Readiness(Engine):
    def do_GET(self) -> None:
        ready = self.path == "/ready" and not NOT_READY.exists()
        self.reply(200 if ready else 503, {"ready": ready})


if __name__ == "__main__":
    readiness = http.server.ThreadingHTTPServer(("", READY_PORT), Readiness)
    threading.Thread(target=readiness.serve_forever, daemon=True).start()
    http.server.ThreadingHTTPServer(("", PORT), Engine).serve_forever()
