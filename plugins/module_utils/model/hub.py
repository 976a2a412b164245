"""What a hub says of a repository: its commit, and every file with its size and checksum.

``GET /api/models/<name>/revision/<revision>`` and ``GET /api/models/<name>/tree/<commit>?recursive=true``, as huggingface_hub's
hf_api.py reads them. A file in LFS has a SHA-256; of others git's own SHA-1 of the blob is known.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Any, TypedDict

from ..core import typed
from .manifest import File, path_problem

ENDPOINT = "https://huggingface.co"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r'<([^>]+)>;\s*rel="?next"?')


class _About(TypedDict):
    sha: str


class _LfsNeeded(TypedDict):
    oid: str


class _Lfs(_LfsNeeded, total=False):
    size: int


class _EntryNeeded(TypedDict):
    type: str
    path: str


class _Entry(_EntryNeeded, total=False):
    size: int
    oid: str
    lfs: _Lfs | None


def about_url(endpoint: str, repository: str, revision: str) -> str:
    """Where the commit of a revision is asked for."""
    return f"{endpoint.rstrip('/')}/api/models/{repository}/revision/{urllib.parse.quote(revision, safe='')}"


def tree_url(endpoint: str, repository: str, commit: str) -> str:
    """Where the files of a commit are asked for."""
    return f"{endpoint.rstrip('/')}/api/models/{repository}/tree/{commit}?recursive=true"


def file_url(endpoint: str, repository: str, commit: str, path: str) -> str:
    """Where a file is."""
    return f"{endpoint.rstrip('/')}/{repository}/resolve/{commit}/{urllib.parse.quote(path)}"


def commit(answer: Any) -> str:
    """The commit, from what the hub answers about a revision.

    Raises:
        BadAnswer: it names none.
    """
    sha = typed.parse(_About, answer, typed.NEWER)["sha"]
    if not _COMMIT.fullmatch(sha):
        raise typed.BadAnswer("is no commit", ("sha",))
    return sha


def files(answer: Any) -> dict[str, File]:
    """The files of a repository, by path, from one page of its tree.

    Raises:
        BadAnswer: it is none, or names a file that lies elsewhere.
    """
    found: dict[str, File] = {}
    for entry in typed.parse(list[_Entry], answer, typed.NEWER):
        if entry["type"] != "file":
            continue
        if problem := path_problem(entry["path"]):
            raise typed.BadAnswer(problem, (entry["path"],))
        found[entry["path"]] = _file(entry)
    return found


def _file(entry: _Entry) -> File:
    oid, size = entry.get("oid", ""), entry.get("size")
    if lfs := entry.get("lfs"):
        sha256, size = lfs["oid"].removeprefix("sha256:"), lfs.get("size", size)
        if _SHA256.fullmatch(sha256):
            return File(size, sha256=sha256)
    return File(size, git=oid if _COMMIT.fullmatch(oid) else None)


def next_page(link: str | None) -> str | None:
    """The URL of the following page, from the header Link; None where there is none."""
    match = _NEXT.search(link or "")
    return match[1] if match else None
