"""The build id of a shared library: what tells two builds of one version apart. Read from the file; nothing is loaded."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

_NOTE_SEGMENT = 4  # PT_NOTE
_BUILD_ID = 3  # NT_GNU_BUILD_ID
_MOST = 1 << 16
"""Bytes of headers and notes that are read at most; real ones have a few hundred."""


def build_id(path: Path) -> str | None:
    """The GNU build id of an ELF file, as hex digits; None where it has none, or is no such file."""
    try:
        with path.open("rb") as file:
            return _build_id(file)
    except (OSError, struct.error):
        return None


def _build_id(file: IO[bytes]) -> str | None:
    """By the program headers, which a stripped library keeps (System V ABI, "Program Header" and "Note Section")."""
    ident = file.read(16)
    if len(ident) < 16 or ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        return None
    order, wide = "<" if ident[5] == 1 else ">", ident[4] == 2
    header = file.read(48 if wide else 36)
    offset = struct.unpack_from(f"{order}Q" if wide else f"{order}I", header, 16 if wide else 12)[0]
    size, count = struct.unpack_from(f"{order}HH", header, 38 if wide else 26)
    file.seek(offset)
    table = file.read(min(size * count, _MOST))
    for start in range(0, len(table) - size + 1, size) if size else ():
        if struct.unpack_from(f"{order}I", table, start)[0] != _NOTE_SEGMENT:
            continue
        place = (8, 32) if wide else (4, 16)
        where, length = (struct.unpack_from(f"{order}{'Q' if wide else 'I'}", table, start + at)[0] for at in place)
        file.seek(where)
        if found := _of_notes(file.read(min(length, _MOST)), order):
            return found
    return None


def _of_notes(notes: bytes, order: str) -> str | None:
    at = 0
    while at + 12 <= len(notes):
        name, length, kind = struct.unpack_from(f"{order}III", notes, at)
        owner, start = notes[at + 12 : at + 12 + name], at + 12 + (name + 3) // 4 * 4
        if kind == _BUILD_ID and owner == b"GNU\0":
            return notes[start : start + length].hex() or None
        at = start + (length + 3) // 4 * 4
    return None
