"""A run's evidence on this host: where it lies, and bringing it to the controller in one answer."""

from __future__ import annotations

import base64
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..core import records, typed, untrusted
from ..engine import state as engine_state

FILE_LIMIT = 256 << 10
HOST_LIMIT = 4 << 20
File = tuple[float, str, Callable[[], bytes]]
"""When it was written, its path, and reading its end."""


def folder(run: str, part: str) -> Path:
    """The folder for the evidence of one part (a gate, a change) of this run, empty of what an earlier try left."""
    found = records.EVIDENCE / plain(run) / plain(part)
    shutil.rmtree(found, ignore_errors=True)
    return found


def plain(name: str) -> str:
    """``name`` as a file may be called: one name, whatever it was, that does not lead out of its folder."""
    found = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)
    return found.replace(".", "_") if not found.strip(".") and found else found[:200] or "run"


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
    found = _found(str(params["run"]), float(params.get("since", 0)))
    for _modified, path, read in sorted(found, key=lambda one: one[:2], reverse=True):
        try:
            kept = read()
        except OSError:
            continue
        if len(kept) > room:
            left_out.append(path)
            continue
        room -= len(kept)
        files[path] = base64.b64encode(zlib.compress(kept)).decode("ascii")
    return {"files": files, "left_out": left_out}


def unpack(packed: Any) -> bytes:
    """The bytes of one of ``collect``'s files, however much its text would become.

    Raises:
        BadAnswer: it is none of ``collect``'s, or has more than ``FILE_LIMIT`` bytes.
    """
    text, unpacker = typed.parse(str, packed), zlib.decompressobj()
    try:
        content = unpacker.decompress(base64.b64decode(text, validate=True), FILE_LIMIT + 1)
    except (ValueError, zlib.error) as error:
        raise typed.BadAnswer(f"is not packed as evidence is: {error}") from error
    if len(content) > FILE_LIMIT:
        raise typed.BadAnswer(f"unpacks to more than {FILE_LIMIT >> 10} KiB")
    if not unpacker.eof:
        raise typed.BadAnswer("ends before its end")
    return content


def _found(run: str, since: float) -> Iterator[File]:
    if run and "/" not in run and run not in (".", ".."):
        yield from _below(records.EVIDENCE / run, 0)
    yield from _below(engine_state.EVIDENCE, since)
    log = engine_state.LOG
    moment = untrusted.modified(log)
    if moment is not None and moment >= since:
        yield moment, str(log), partial(untrusted.end_of_file, log, FILE_LIMIT)


def _below(top: Path, since: float) -> Iterator[File]:
    """The files below a folder that its owner may have filled with links; each is opened anew when it is read."""
    try:
        with untrusted.open_folder(top) as folder:
            found = list(untrusted.files_below(folder))
    except OSError:
        return
    for parts, moment in found:
        if moment >= since:
            yield moment, str(top.joinpath(*parts)), partial(_end_of, top, parts)


def _end_of(top: Path, parts: Sequence[str]) -> bytes:
    with untrusted.open_folder(top) as folder:
        return untrusted.end_below(folder, parts, FILE_LIMIT)
