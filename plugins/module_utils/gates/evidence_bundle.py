"""A run's evidence on this host: where it lies, and bringing it to the controller in one answer."""

from __future__ import annotations

import base64
import re
import shutil
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..core import records, shapes
from ..engine import state as engine_state

FILE_LIMIT = 256 << 10
HOST_LIMIT = 4 << 20


def folder(run: str, part: str) -> Path:
    """The folder for the evidence of one part (a gate, a change) of this run, empty of what an earlier try left."""
    found = records.EVIDENCE / plain(run) / plain(part)
    shutil.rmtree(found, ignore_errors=True)
    return found


def plain(name: str) -> str:
    """``name`` as a file may be called."""
    return re.sub(r"[^\w.+-]", "_", name) or "run"


def collect(params: Mapping[str, Any]) -> dict[str, Any]:
    """The evidence files of a run.

    Args:
        params: ``run``; ``since`` (Unix seconds): evidence of the engine and its log are brought too where they are newer.

    Returns:
        ``files``: path to base64 of the zlib-compressed last ``FILE_LIMIT`` bytes; ``left_out``: paths beyond ``HOST_LIMIT``.
    """
    files: dict[str, str] = {}
    left_out: list[str] = []
    room = HOST_LIMIT
    for path in _newest_first(_found(str(params["run"]), float(params.get("since", 0)))):
        kept = _end_of(path)
        if kept is None:
            continue
        if len(kept) > room:
            left_out.append(str(path))
            continue
        room -= len(kept)
        files[str(path)] = base64.b64encode(zlib.compress(kept)).decode("ascii")
    return {"files": files, "left_out": left_out}


def unpack(packed: Any) -> bytes:
    """The bytes of one of ``collect``'s files, however much its text would become.

    Raises:
        BadAnswer: it is none of ``collect``'s, or has more than ``FILE_LIMIT`` bytes.
    """
    shapes.text(packed)
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(base64.b64decode(packed, validate=True), FILE_LIMIT + 1)
    except (ValueError, zlib.error) as error:
        raise shapes.BadAnswer(f"is not packed as evidence is: {error}") from error
    if len(content) > FILE_LIMIT:
        raise shapes.BadAnswer(f"unpacks to more than {FILE_LIMIT >> 10} KiB")
    if not unpacker.eof:
        raise shapes.BadAnswer("ends before its end")
    return content


def _found(run: str, since: float) -> Iterable[Path]:
    if run and "/" not in run and run not in (".", ".."):
        yield from (records.EVIDENCE / run).rglob("*")
    for path in [*engine_state.EVIDENCE.rglob("*"), engine_state.LOG]:
        try:
            if path.stat().st_mtime >= since:
                yield path
        except OSError:
            continue


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    dated = []
    for path in paths:
        try:
            if path.is_file() and not path.is_symlink():
                dated.append((path.stat().st_mtime, path))
        except OSError:
            continue
    return [path for _moment, path in sorted(dated, reverse=True)]


def _end_of(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(size - FILE_LIMIT, 0))
            return stream.read(FILE_LIMIT)
    except OSError:
        return None
