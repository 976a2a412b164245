#!/usr/bin/env python3
"""Stands in for Hugging Face's hub where the real one cannot be reached: one private repository, for who has its token.

usage: hub.py PORT FOLDER OWNER/NAME TOKEN

PORT is printed once it listens there; 0 stands for any that is free. FOLDER holds the repository's files. Answers what
huggingface_hub asks for a download (its file_download.py and hf_api.py): the repository's state, the list of its files (weights
and large ones in LFS), and each file or a range of it with its ETag and the commit. Without the token everything is 401, but
below /plain, where the same files lie as on any web server.

FOLDER/.faults.json, read at every request, spoils what is sent: {"damage": {"model.safetensors": 1}} turns a bit of it in the
next answer, {"bytes_per_second": 100000} slows everything down, {"no_ranges": true} sends whole files alone.
"""

import hashlib
import http.server
import json
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

PORT, FOLDER, REPOSITORY, TOKEN = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
COMMIT = hashlib.sha1(REPOSITORY.encode(), usedforsecurity=False).hexdigest()
FAULTS = FOLDER / ".faults.json"
BLOCK = 1 << 14


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if path.startswith("/plain/"):
            return self.file(path.removeprefix("/plain/"), {}, with_body)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply(401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "no token"}, with_body)
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            return self.reply(200, json.dumps(tree()).encode(), {"Content-Type": "application/json"}, with_body)
        if path.rstrip("/") == f"/api/models/{REPOSITORY}" or path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            about = {"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "private": True, "tags": [], "siblings": [
                {"rfilename": name, "size": path.stat().st_size} for name, path in files().items()
            ]}  # fmt: skip
            return self.reply(200, json.dumps(about).encode(), {"Content-Type": "application/json"}, with_body)
        if path.startswith(f"/{REPOSITORY}/resolve/"):
            name = path.removeprefix(f"/{REPOSITORY}/resolve/").partition("/")[2]
            return self.file(name, {"X-Repo-Commit": COMMIT}, with_body)
        return self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_body)

    def file(self, name: str, headers: dict[str, str], with_body: bool) -> None:
        path = files().get(name)
        if path is None:
            return self.reply(404, b"{}", {**headers, "X-Error-Code": "EntryNotFound"}, with_body)
        given, content = faults(), path.read_bytes()
        headers = {**headers, "ETag": f'"{etag(path)}"', "Accept-Ranges": "none" if given.get("no_ranges") else "bytes"}
        if with_body and given.get("damage", {}).get(name):
            given["damage"][name] -= 1
            FAULTS.write_text(json.dumps(given))
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes=") or given.get("no_ranges"):
            return self.reply(200, content, headers, with_body)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) if last else len(content) - 1, len(content) - 1)
        if start >= len(content):
            return self.reply(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"}, with_body)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self.reply(206, content[start : end + 1], headers, with_body)

    def reply(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        pace = faults().get("bytes_per_second")
        for start in range(0, len(body) if with_body else 0, BLOCK):
            self.wfile.write(body[start : start + BLOCK])
            if pace:
                self.wfile.flush()
                time.sleep(BLOCK / pace)


def faults() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FAULTS.read_text()) if FAULTS.exists() else {}
    return found


def files() -> dict[str, Path]:
    return {
        str(path.relative_to(FOLDER)): path for path in sorted(FOLDER.rglob("*")) if path.is_file() and path != FAULTS
    }


def in_lfs(path: Path) -> bool:
    return path.suffix == ".safetensors" or path.stat().st_size >= 1 << 20


def etag(path: Path) -> str:
    content = path.read_bytes()
    if in_lfs(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def tree() -> list[dict[str, object]]:
    listed: list[dict[str, object]] = []
    for name, path in files().items():
        entry: dict[str, object] = {"type": "file", "path": name, "size": path.stat().st_size, "oid": etag(path)}
        if in_lfs(path):
            pointer = hashlib.sha1(etag(path).encode(), usedforsecurity=False).hexdigest()
            entry |= {"oid": pointer, "lfs": {"oid": etag(path), "size": path.stat().st_size, "pointerSize": 134}}
        listed.append(entry)
    return listed


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("", PORT), Hub)
    print(server.server_port, flush=True)
    server.serve_forever()
