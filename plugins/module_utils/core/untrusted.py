"""Reading what somebody else may have put there: files in folders of the user ``lockstep``, read as root.

Whoever owns a folder may leave a link to any file in it, a FIFO on which a reader waits for ever, a device that never ends,
a number of a thousand digits, or brackets nested without end. So a file is opened below a handle of its folder, without
following a link and without waiting; it must be a regular file that belongs to the owner of the folder; no more of it is read
than a limit; and its JSON may not be deep, nor hold numbers and text that others choke on.

Every probe brings this file to every host, so it imports little.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

LIMIT = 1 << 20
"""Bytes that a record may have."""
DEEPEST = 32
"""Objects and lists that may be nested in a record."""
LARGEST = 1 << 63
"""Whole numbers of a record lie below it, and above its negative."""
_TOO_DEEP = f"is nested deeper than {DEEPEST} levels"
MOST_FILES = 2000
"""Files of a folder that are looked at."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class RefusedError(OSError):
    """There is something, but no file that may be read."""


class Found(NamedTuple):
    """A file below a folder.

    Attributes:
        parts: its path below the folder, name by name.
        modified: Unix seconds.
    """

    parts: tuple[str, ...]
    modified: float


def read_file(path: Path, limit: int = LIMIT) -> bytes:
    """The content of a small file.

    Raises:
        FileNotFoundError: there is none.
        OSError: it is a link or no regular file, belongs to somebody else than its folder, or is larger than ``limit``.
    """
    with _opened(os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
        return read_below(folder, (path.name,), limit)


def read_below(folder: int, parts: Sequence[str], limit: int = LIMIT) -> bytes:
    """``read_file`` for the file at ``parts`` below an open folder; no part of them may be a link."""
    with _file(folder, parts) as handle:
        content = _from(handle, 0, limit + 1)
    if len(content) > limit:
        raise RefusedError(f"{'/'.join(parts)} is larger than {limit} bytes")
    return content


def end_of_file(path: Path, limit: int) -> bytes:
    """The last ``limit`` bytes of a file; raises as ``read_file``, except that it may have any size."""
    with _opened(os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
        return end_below(folder, (path.name,), limit)


def end_below(folder: int, parts: Sequence[str], limit: int) -> bytes:
    """``end_of_file`` for the file at ``parts`` below an open folder; no part of them may be a link."""
    with _file(folder, parts) as handle:
        return _from(handle, max(os.fstat(handle).st_size - limit, 0), limit)


def modified(path: Path) -> float | None:
    """When a file that may be read was last written, Unix seconds; None where there is none."""
    try:
        with (
            _opened(os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as folder,
            _file(folder, (path.name,)) as handle,
        ):
            return os.fstat(handle).st_mtime
    except OSError:
        return None


@contextlib.contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """A handle of a folder that is no link; what it stands for stays the same whatever becomes of the path."""
    with _opened(os.open(path, _FOLDER)) as handle:
        yield handle


def files_below(folder: int, most: int = MOST_FILES, deepest: int = DEEPEST) -> Iterator[Found]:
    """The files below an open folder that may be read, the first ``most`` of whatever lies there. Links are not followed."""
    owner, seen = os.fstat(folder).st_uid, 0
    ahead: list[tuple[str, ...]] = [()]
    while ahead:
        parts = ahead.pop()
        try:
            with _below(folder, parts) as handle:
                for name in _names(handle, most - seen):
                    seen += 1
                    try:
                        about = os.stat(name, dir_fd=handle, follow_symlinks=False)
                    except FileNotFoundError:  # gone since it was listed
                        continue
                    if stat.S_ISREG(about.st_mode) and about.st_uid == owner:
                        yield Found((*parts, name), about.st_mtime)
                    elif stat.S_ISDIR(about.st_mode) and len(parts) < deepest:
                        ahead.append((*parts, name))
        except OSError:
            continue
        if seen >= most:
            return


def parse_json(text: bytes | str, *, finite: bool = True, encodable: bool = True) -> Any:
    """JSON of modest depth, numbers and text.

    Args:
        finite: refuse NaN and infinities, which are no JSON, though Python writes them.
        encodable: refuse halves of surrogate pairs, which nothing can write.

    Raises:
        ValueError: it is no JSON, or more than that.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except (ValueError, MemoryError) as error:
        raise ValueError(f"is not JSON: {error}") from error
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in _inside(one, finite, encodable)]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


def _inside(value: Any, finite: bool, encodable: bool) -> Iterator[Any]:
    """What a value of JSON holds, once it is checked itself."""
    if isinstance(value, dict):
        for name in value:
            _check(name, finite, encodable)
        yield from value.values()
    elif isinstance(value, list):
        yield from value
    else:
        _check(value, finite, encodable)


def _check(value: Any, finite: bool, encodable: bool) -> None:
    if isinstance(value, str):
        if encodable and not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value):
            raise ValueError("holds half of a character")
    elif isinstance(value, float):
        if finite and not math.isfinite(value):
            raise ValueError(f"holds a number that is not finite: {value}")
    elif isinstance(value, int) and not -LARGEST < value < LARGEST:
        raise ValueError("holds a number of more than 64 bits")


@contextlib.contextmanager
def _file(folder: int, parts: Sequence[str]) -> Iterator[int]:
    """The file at ``parts`` below a folder: a regular one of the folder's owner."""
    with _below(folder, parts[:-1]) as inner, _opened(os.open(parts[-1], _FILE, dir_fd=inner)) as handle:
        about, owner = os.fstat(handle), os.fstat(folder).st_uid
        if not stat.S_ISREG(about.st_mode):
            raise RefusedError(f"{'/'.join(parts)} is no regular file")
        if about.st_uid != owner:
            raise RefusedError(f"{'/'.join(parts)} belongs to user {about.st_uid}, its folder to user {owner}")
        yield handle


@contextlib.contextmanager
def _below(folder: int, parts: Sequence[str]) -> Iterator[int]:
    """A handle of the folder at ``parts`` below another, none of them a link."""
    if not parts:
        yield folder
        return
    with _opened(os.open(parts[0], _FOLDER, dir_fd=folder)) as inner, _below(inner, parts[1:]) as last:
        yield last


@contextlib.contextmanager
def _opened(handle: int) -> Iterator[int]:
    try:
        yield handle
    finally:
        os.close(handle)


def _names(folder: int, most: int) -> list[str]:
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if len(names) >= most:
                break
            if (
                entry.name.isprintable()
            ):  # a name with a line's end, or with bytes that are no text, is nobody's evidence
                names.append(entry.name)
    return names


def _from(handle: int, start: int, most: int) -> bytes:
    """At most ``most`` bytes from ``start`` on; a file that grows meanwhile does not make it longer."""
    parts: list[bytes] = []
    while most > 0:
        part = os.pread(handle, min(most, 1 << 16), start)
        if not part:
            break
        parts.append(part)
        start, most = start + len(part), most - len(part)
    return b"".join(parts)
