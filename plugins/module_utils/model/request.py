"""What root asks of the worker, and what it answers: the two records that cross between root and the user ``lockstep``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..core import typed
from ..core.codes import as_json
from .codes import Result, Verb


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        verb: which.
        folder: of models, an absolute path.
        name: of the model's folder in it; empty for ``prune``.
        source: as ``model_source`` has it.
        revision: of a repository.
        checksums: lines of ``sha256sum``, given by the operator; empty where the source has them.
        files: what the controller sends: size and SHA-256 by path, as a manifest has them.
        exclude: patterns of files to leave out.
        environment: variables for the tools, such as proxies and ``HF_ENDPOINT``.
        hash_again: hash what is there already, too.
        dry: say what would be done and write nothing.
        keep: names that ``prune`` must not remove.
        path: what ``warm`` reads.
        seconds: that ``warm`` may take.
    """

    verb: Verb
    folder: str
    name: str = ""
    source: str = ""
    revision: str = "main"
    checksums: str = ""
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hash_again: bool = False
    dry: bool = False
    keep: tuple[str, ...] = ()
    path: str = ""
    seconds: float = 600.0


@dataclasses.dataclass(frozen=True)
class Answer:
    """How it ended.

    Attributes:
        code: which way.
        reason: for people; where it failed, what is wrong and where.
        changed: whether anything was, or, asked dry, would be.
        digest: of the model's files.
        bytes: of the model.
        brought: bytes that were, or would be, brought.
        files: those that are wrong, with what is wrong; or that the controller has to send, with how many bytes are there.
        removed: models that were, or would be, removed.
    """

    code: Result
    reason: str = ""
    changed: bool = False
    digest: str = ""
    bytes: int = 0
    brought: int = 0
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    removed: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        record: dict[str, Any] = as_json(self)
        return record


def request(record: Mapping[str, Any]) -> Request:
    """A request from its record. Raises BadAnswer where it is none."""
    return typed.parse(Request, record)


def answer(record: Mapping[str, Any]) -> Answer:
    """An answer from its record, which anybody of the worker's user may have written. Raises BadAnswer where it is none."""
    return typed.parse(Answer, record)
