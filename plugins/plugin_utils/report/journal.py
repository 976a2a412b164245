"""The journal of a run: one JSON object per line, one line per state change, each on disk before the run goes on.

The journal is for people and for the report. The truth stays on the hosts: nothing that a later run needs is read from
here. docs/reference/journal.md lists the events and their keys.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import secrets
from pathlib import Path, PurePosixPath

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import Event
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import Given

NAME = "journal.jsonl"
REPORT = "report.html"
INDEX = "index.html"
EVIDENCE = "evidence"
"""Folder beside the report: ``evidence/<host>/<path on the host>.txt``; see :func:`evidence_name`."""
_LINE_ENDS = re.compile("[\x7f-\x9f\u2028\u2029]")
ROOT = ".cache/lockstep/runs"
ROOT_VARIABLE = "LOCKSTEP_RUNS"


def evidence_name(path: str) -> str:
    """Where a file of a host lies below its folder: its path there, in plain characters, and always as text."""
    parts = [re.sub(r"[^\w.+@=-]", "_", part)[:200] for part in path.split("/") if part not in ("", ".", "..")]
    name = "/".join(parts) or "file"
    return name if PurePosixPath(name).suffix == ".txt" else f"{name}.txt"


def new_run(now: datetime.datetime | None = None) -> str:
    """A name for a run that sorts by time: ``20261122T003000Z-ab12``."""
    moment = now or datetime.datetime.now(datetime.UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def stamp(seconds: float) -> str:
    """Unix seconds as the journal writes them: RFC 3339, UTC, milliseconds."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


class Journal:
    """An open journal in ``<root>/<run>/journal.jsonl``; appends to one that is already there.

    Raises:
        OSError: the folder or the file cannot be made or written.
    """

    def __init__(self, root: Path, run: str) -> None:
        self._root = root
        self._run = run
        root.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def run(self) -> str:
        return self._run

    @property
    def folder(self) -> Path:
        return self._root / self._run

    @property
    def path(self) -> Path:
        return self.folder / NAME

    @property
    def report(self) -> Path:
        return self.folder / REPORT

    def write(self, event: Given) -> None:
        """Append one event; it is on disk when this returns. Values that JSON does not know are written as text."""
        os.write(self._handle, (_line(event) + "\n").encode("utf-8", errors="replace"))
        os.fsync(self._handle)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _line(event: Given) -> str:
    """The event on one line, whatever reads it: some take these for ends of a line too."""
    try:
        line = json.dumps(event, default=str, ensure_ascii=False)
    except (ValueError, RecursionError) as error:  # the event must not be lost with what it carries
        known = {key: value for key, value in event.items() if isinstance(value, (str, float, bool))}
        line = json.dumps({**known, "unwritable": type(error).__name__}, ensure_ascii=False)
    return _LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def read(path: Path) -> list[Event]:
    """The events of a journal, in order; ``\\n`` alone ends a line. A last line that was torn by a crash is left out.

    Raises:
        OSError: it cannot be read.
        ValueError: a line other than the last is not an event; names the line.
    """
    events: list[Event] = []
    lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or "event" not in event:
                raise ValueError("no event")
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}: line {number} is not an event: {error}") from error
        events.append(event)
    return events


def newest(root: Path, most: int) -> tuple[list[Path], int]:
    """The newest ``most`` folders below ``root`` that have a journal, newest first, and how many there are in all."""
    folders = _folders(root)
    return folders[:most], len(folders)


def unreported(root: Path, but: str = "", most: int = 5) -> list[Path]:
    """The newest ``most`` folders below ``root`` that have a journal and no report: runs that were killed."""
    return [folder for folder in _folders(root) if folder.name != but and not (folder / REPORT).exists()][:most]


def _folders(root: Path) -> list[Path]:
    return sorted((path.parent for path in root.glob(f"*/{NAME}")), key=lambda path: path.name, reverse=True)
