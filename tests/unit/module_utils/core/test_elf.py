"""Build ids, against what readelf says of real libraries."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import elf


def loaded_libraries() -> list[Path]:
    """Shared libraries of this very process."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sorted({Path(line.split()[-1]) for line in maps if re.search(r"\.so[.\d]*$", line)})


@pytest.mark.skipif(shutil.which("readelf") is None, reason="wants readelf")
def test_every_library_of_this_process_as_readelf_has_it() -> None:
    compared = 0
    for path in [*loaded_libraries(), Path(os.path.realpath(sys.executable))]:
        shown = subprocess.run(["readelf", "-n", str(path)], capture_output=True, text=True, check=False).stdout
        found = re.search(r"Build ID: ([0-9a-f]+)", shown)
        assert elf.build_id(path) == (found.group(1) if found else None), path
        compared += bool(found)
    assert compared


def made(order: str, wide: bool, notes: bytes) -> bytes:
    """A file of headers and notes alone."""
    word = "Q" if wide else "I"
    head, entry = (64, 56) if wide else (52, 32)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    rest = struct.pack(f"{order}HHI{word}{word}{word}IHHHHHH", 3, 62, 1, 0, head, 0, 0, head, entry, 2, 0, 0, 0)
    load = struct.pack(f"{order}I", 1) + bytes(entry - 4)
    where = head + 2 * entry
    if wide:
        note = struct.pack(f"{order}IIQQQQQQ", 4, 4, where, 0, 0, len(notes), len(notes), 4)
    else:
        note = struct.pack(f"{order}IIIIIIII", 4, where, 0, 0, len(notes), len(notes), 4, 4)
    return ident + rest + load + note + notes


def note(order: str, owner: bytes, kind: int, content: bytes) -> bytes:
    owner += b"\0"
    padded = owner + bytes(-len(owner) % 4)
    return struct.pack(f"{order}III", len(owner), len(content), kind) + padded + content + bytes(-len(content) % 4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("wide", [True, False])
def test_the_note_is_found_behind_others(order: str, wide: bool, tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    notes = (
        note(order, b"Go", 3, b"x" * 5) + note(order, b"GNU", 1, bytes(16)) + note(order, b"GNU", 3, b"\xab\xcd" * 10)
    )
    path.write_bytes(made(order, wide, notes))
    assert elf.build_id(path) == "abcd" * 10


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF",
        b"#!/bin/sh\n",
        b"\x7fELF\x02\x01" + bytes(200),
        made("<", True, b""),
        made("<", True, b"\xff" * 40),
    ],
    ids=["empty", "cut off", "a script", "no segments", "no notes", "nonsense"],
)
def test_what_has_no_build_id(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(content)
    assert elf.build_id(path) is None


def test_what_cannot_be_read(tmp_path: Path) -> None:
    assert elf.build_id(tmp_path / "gone") is None
    assert elf.build_id(tmp_path) is None
