#!/usr/bin/env python3
"""Stands in for Hugging Face's hub where the real one cannot be reached: one private repository, for who has its token.

usage: hub.py PORT FOLDER OWNER/NAME TOKEN

FOLDER holds the repository's files. Answers what huggingface_hub asks for a download (its file_download.py and hf_api.py): the
repository's state, the list of its files, and each file with its ETag and the commit. Without the token everything is 401.
"""

import hashlib
import http.server
import json
import sys
import urllib.parse
from pathlib import Path

PORT, FOLDER, REPOSITORY, TOKEN = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
COMMIT = hashlib.sha1(REPOSITORY.encode(), usedforsecurity=False).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "no token"}, with_body)
        files = sorted(one for one in FOLDER.iterdir() if one.is_file())
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            tree = [{"type": "file", "path": one.name, "size": one.stat().st_size, "oid": digest(one)} for one in files]
            return self.reply(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, with_body)
        if path.rstrip("/") == f"/api/models/{REPOSITORY}" or path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            about = {"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "private": True, "tags": [], "siblings": [
                {"rfilename": one.name, "size": one.stat().st_size} for one in files
            ]}  # fmt: skip
            return self.reply(200, json.dumps(about).encode(), {"Content-Type": "application/json"}, with_body)
        named = FOLDER / path.rpartition("/")[2]
        if path.startswith(f"/{REPOSITORY}/resolve/") and named in files:
            headers = {"ETag": f'"{digest(named)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            return self.reply(200, named.read_bytes(), headers, with_body)
        return self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body)

    def reply(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("", PORT), Hub).serve_forever()
