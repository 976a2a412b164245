"""What a hub says of a repository: its commit, and every file with its size and checksum.

``GET /api/models/<name>/revision/<revision>`` and ``GET /api/models/<name>/tree/<commit>?recursive=true``, as huggingface_hub's
hf_api.py reads them. A file in LFS has a SHA-256; of others git's own SHA-1 of the blob is known.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from ..core import shapes
from .manifest import File, path_problem

ENDPOINT = "https://huggingface.co"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r'<([^>]+)>;\s*rel="?next"?')
_ABOUT = shapes.record({"sha": shapes.text}, needed=("sha",))
_LFS = shapes.record({"oid": shapes.text, "size": shapes.whole}, needed=("oid",))
_TREE = shapes.items(
    shapes.record(
        {"type": shapes.text, "path": shapes.text, "size": shapes.whole, "oid": shapes.text, "lfs": shapes.maybe(_LFS)},
        needed=("type", "path"),
    )
)


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
    _ABOUT(answer)
    if not _COMMIT.fullmatch(answer["sha"]):
        raise shapes.BadAnswer("is no commit", ("sha",))
    return str(answer["sha"])


def files(answer: Any) -> dict[str, File]:
    """The files of a repository, by path, from one page of its tree.

    Raises:
        BadAnswer: it is none, or names a file that lies elsewhere.
    """
    _TREE(answer)
    found: dict[str, File] = {}
    for entry in answer:
        if entry["type"] != "file":
            continue
        if problem := path_problem(entry["path"]):
            raise shapes.BadAnswer(problem, (entry["path"],))
        found[entry["path"]] = _file(entry)
    return found


def _file(entry: Mapping[str, Any]) -> File:
    lfs, oid = entry.get("lfs") or {}, str(entry.get("oid", ""))
    size = lfs.get("size", entry.get("size"))
    if _SHA256.fullmatch(str(lfs.get("oid", "")).removeprefix("sha256:")):
        return File(size, sha256=str(lfs["oid"]).removeprefix("sha256:"))
    if _COMMIT.fullmatch(oid):
        return File(size, git=oid)
    return File(size)


def next_page(link: str | None) -> str | None:
    """The URL of the following page, from the header Link; None where there is none."""
    match = _NEXT.search(link or "")
    return match[1] if match else None
