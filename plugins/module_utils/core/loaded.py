"""Whether a service runs what its files say: a run may die between writing a file and having it loaded, and the next finds it
as it should be.

The record of a load (``/var/lib/lockstep/loaded/<unit>.json``) holds which files they were, by inode, size and times: whatever
rewrote one since, it is another. A service that was started after its files were written has loaded them as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from . import records

FOLDER = records.STATE / "loaded"


class Loaded(TypedDict):
    """What a unit loaded last: its files and folders, and their signature then."""

    unit: str
    files: list[str]
    signature: str


def signature(files: Iterable[str]) -> str:
    """Sixteen hex digits that change with every file that is written, moved into its place, or gone. No content is read."""
    found = hashlib.sha256()
    for path in _all(files):
        try:
            seen = path.stat()
        except OSError:
            found.update(f"{path}\0absent\0".encode())
            continue
        found.update(f"{path}\0{seen.st_ino}\0{seen.st_size}\0{seen.st_mtime_ns}\0{seen.st_ctime_ns}\0".encode())
    return found.hexdigest()[:16]


def written(files: Iterable[str]) -> float:
    """When the newest of them came to be as it is, in Unix seconds; 0 where there is none."""
    times = [0.0]
    for path in _all(files):
        if path.exists():
            times.append(path.stat().st_ctime)
    return max(times)


def is_due(last: Loaded | None, files: Sequence[str], started: int | None) -> bool:
    """Whether the unit has to load ``files``.

    Args:
        last: the record of its last load; None where there is none.
        started: when it was started, in whole Unix seconds; None where that is not known.
    """
    if last is not None and last["files"] == sorted(files) and last["signature"] == signature(files):
        return False
    return started is None or started <= written(files)


def read(unit: str) -> Loaded | None:
    """The record of a unit's last load; None where there is none that can be read: it is then loaded once more."""
    try:
        stored = records.read(FOLDER / f"{unit}.json")
        return None if stored is None else records.parsed(Loaded, stored, f"record of what {unit} loaded")
    except records.RecordError:
        return None


def write(unit: str, files: Sequence[str], as_of: str) -> bool:
    """Record that a unit has loaded the files that had this signature. Returns whether that is news."""
    record: Loaded = {"unit": unit, "files": sorted(files), "signature": as_of}
    return records.write(FOLDER / f"{unit}.json", record)


def unloaded() -> list[str]:
    """The units whose files were written since they loaded them, by the records that there are."""
    known = (read(path.stem) for path in sorted(FOLDER.glob("*.json")))
    return [last["unit"] for last in known if last is not None and last["signature"] != signature(last["files"])]


def _all(files: Iterable[str]) -> Iterator[Path]:
    for path in map(Path, sorted(files)):
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]
