"""What a model's files have to be: names, sizes and SHA-256, as a manifest beside the files or a list of ``sha256sum``."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

from ..core import typed

NAME = ".lockstep-model.json"
"""The manifest, in the model's own folder; written last, so what has one was whole."""
SUMS = "SHA256SUMS"
LIMIT = 1 << 20
"""Bytes of a manifest."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(r"(?P<sha256>[0-9a-fA-F]{64}) [ *](?P<path>.+)")


class _StoredFile(TypedDict):
    size: int
    sha256: str


class _Needed(TypedDict):
    source: str
    files: dict[str, _StoredFile]


class _Stored(_Needed, total=False):
    commit: str | None
    at: str


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a model.

    Attributes:
        size: bytes; None where the source does not say.
        sha256: None where the source does not say.
        git: SHA-1 of the file as git's blob, which a hub has for small files in place of a SHA-256.
    """

    size: int | None
    sha256: str | None = None
    git: str | None = None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What was staged.

    Attributes:
        source: where it came from.
        files: by their paths below the model's folder, each with size and SHA-256.
        commit: of a repository.
        at: when.
    """

    source: str
    files: Mapping[str, File]
    commit: str | None = None
    at: str = ""

    @property
    def digest(self) -> str:
        """Of the files alone: the same on all hosts that have the same model, wherever it came from."""
        listed = sorted((path, file.size, file.sha256) for path, file in self.files.items())
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size or 0 for file in self.files.values())

    def as_record(self) -> dict[str, Any]:
        """As the file has it."""
        files = {path: {"size": file.size, "sha256": file.sha256} for path, file in sorted(self.files.items())}
        return {"source": self.source, "commit": self.commit, "at": self.at, "files": files}


def read(text: str) -> Manifest:
    """A manifest from the text of its file.

    Raises:
        BadAnswer: it is none.
    """
    value = typed.parse(_Stored, typed.loads(text), typed.NEWER)
    for path, about in value["files"].items():
        problem = path_problem(path)
        if problem or not _SHA256.fullmatch(about["sha256"]) or about["size"] < 0:
            raise typed.BadAnswer(problem or "has a size or checksum that is none", ("files", path))
    files = {path: File(about["size"], about["sha256"]) for path, about in value["files"].items()}
    return Manifest(value["source"], files, value.get("commit"), value.get("at", ""))


def path_problem(path: str) -> str | None:
    """Why a path that somebody else named is no file below a model's folder; None where it is one."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or "." in parts or "" in parts:
        return "is no path below the model's folder"
    if not path.isprintable() or "\\" in path:
        return "has characters that no model's file needs"
    if path == NAME or parts[0] in (".cache", ".git"):
        return "is a name that is kept for other things"
    return None


def checksums(text: str) -> dict[str, str]:
    """Path to SHA-256, from the lines that ``sha256sum`` writes.

    Raises:
        BadAnswer: a line is none, or names no file below the folder.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise typed.BadAnswer("is no line of sha256sum", (f"line {number}",))
        path = match["path"].removeprefix("./")
        if problem := path_problem(path):
            raise typed.BadAnswer(f"{path!r:.80} {problem}", (f"line {number}",))
        found[path] = match["sha256"].lower()
    if not found:
        raise typed.BadAnswer("names no file")
    return found


def without(paths: Iterable[str], excluded: Iterable[str]) -> Iterator[str]:
    """Those of ``paths`` that no pattern of ``excluded`` fits, as ``hf download --exclude`` reads patterns."""
    patterns = tuple(excluded)
    yield from (path for path in paths if not any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns))
