"""Xid and SXid events: the GPU and NVSwitch errors in the kernel's messages since boot."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, cast, get_args

from ..core.commands import Run, run_command

Kind = Literal["Xid", "SXid"]
_XID = (
    r"NVRM: (?P<kind>Xid) \(PCI:(?P<xdev>[^)]+)\): (?P<xcode>\d+)"
    r"|(?P<skind>SXid) \(PCI:(?P<sdev>[^)]+)\): (?P<scode>\d+)"
)


class XidEvent(TypedDict):
    """All events of one kind and code since boot: how many, when the last was (RFC 3339), where, its message, and whether
    the kernel called it non-fatal (SXids of NVSwitches)."""

    kind: Kind
    code: int
    count: int
    last: str
    devices: list[str]
    message: str
    non_fatal: bool


class XidMeaning(TypedDict):
    """A row of data/xids.yml: ``application`` errors are a program's fault, ``device`` errors the GPU's or the driver's."""

    kind: Kind
    code: int
    origin: Literal["application", "device"]
    meaning: str


def parse_meanings(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[Kind, int], XidMeaning]:
    """The rows of data/xids.yml by kind and code.

    Raises:
        ValueError: a row has an unknown kind or class.
    """
    for row in rows:
        if row["kind"] not in get_args(Kind) or row["class"] not in ("application", "device"):
            raise ValueError(f"data/xids.yml: kind {row['kind']!r}, class {row['class']!r} of code {row['code']}")
    return {
        (row["kind"], int(row["code"])): {
            "kind": row["kind"],
            "code": int(row["code"]),
            "origin": row["class"],
            "meaning": str(row["meaning"]),
        }
        for row in rows
    }


def xids(root: Path = Path("/"), run: Run = run_command, deadline: float = 5.0) -> list[XidEvent]:
    """The events since boot, from the kernel's buffer, or from the journal where the buffer has lost the first ones."""
    boot = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    records = _kmsg(root / "dev/kmsg").splitlines()
    # Of thousands of records the first, which tells whether older ones were lost, and those that matter.
    messages, lost = parse_kmsg("\n".join([*records[:1], *(record for record in records[1:] if "Xid" in record)]), boot)
    if messages and not lost:
        return parse_xids(messages)
    kept = run(["journalctl", "-k", "-b", "-q", "--no-pager", "-o", "short-unix", "-g", "Xid"], deadline)
    return parse_xids(parse_journal(kept.stdout) or messages)


def refusal(since: float, root: Path = Path("/")) -> str | None:
    """Why the module refused a card ``since`` then (seconds after boot), as the kernel's buffer has it; None if it did not."""
    records, _lost = parse_kmsg(_kmsg(root / "dev/kmsg"), 0.0)
    return parse_refusal([message for when, message in records if when >= since])


def parse_refusal(messages: Sequence[str]) -> str | None:
    """The last sentence of the module that begins with the card it is about; it goes over several lines."""
    sentences: list[list[str]] = []
    inside = False
    for message in messages:
        said = re.match(r"NVRM: ?(.*)$", message.strip())
        if said and re.match(r"The NVIDIA GPU \S+ \(PCI ID:", said[1]):
            sentences.append([])
            inside = True
        inside = inside and said is not None
        if inside and said:
            sentences[-1].append(said[1].strip())
            inside = not said[1].rstrip().endswith(".")
    return " ".join(sentences[-1]) if sentences else None


def parse_kmsg(text: str, boot: float) -> tuple[list[tuple[float, str]], bool]:
    """Kernel messages as (unix time, message) from ``/dev/kmsg`` records, and whether the first ones were lost.

    ``boot`` is the unix time of the boot. A record is ``priority,sequence,microseconds,flags;message``.
    """
    messages: list[tuple[float, str]] = []
    first: int | None = None
    for line in text.splitlines():
        head, mark, message = line.partition(";")
        fields = head.split(",")
        if not mark or len(fields) < 3 or not (fields[1].isdigit() and fields[2].isdigit()):
            continue
        first = int(fields[1]) if first is None else first
        messages.append((boot + int(fields[2]) / 1e6, message))
    return messages, bool(first)


def parse_journal(text: str) -> list[tuple[float, str]]:
    """Messages as (unix time, message) from ``journalctl -o short-unix``."""
    lines = (line.split(" ", 1) for line in text.splitlines())
    return [(float(parts[0]), parts[1]) for parts in lines if len(parts) == 2 and re.fullmatch(r"\d+\.\d+", parts[0])]


def parse_xids(messages: Iterable[tuple[float, str]]) -> list[XidEvent]:
    """Events by kind and code from kernel messages."""
    events: dict[tuple[Kind, int], XidEvent] = {}
    for when, message in sorted(messages):
        match = re.search(_XID, message)
        if not match:
            continue
        kind = cast(Kind, match["kind"] or match["skind"])
        code = int(match["xcode"] or match["scode"])
        before = events.get((kind, code))
        events[kind, code] = {
            "kind": kind,
            "code": code,
            "count": (before["count"] if before else 0) + 1,
            "devices": sorted({*(before["devices"] if before else ()), match["xdev"] or match["sdev"]}),
            "message": message[match.start() :].strip(),
            "non_fatal": "Non-fatal" in message,
            "last": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(when))),
        }
    return [events[key] for key in sorted(events)]


def _kmsg(path: Path) -> str:
    """The kernel's message buffer; empty where it may not be read, or is not the kernel's own device."""
    try:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            return ""
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    chunks: list[bytes] = []
    try:
        while True:
            try:
                chunk = os.read(handle, 65536)
            except BrokenPipeError:
                continue
            except OSError:
                break
            if not chunk:
                break
            chunks.append(chunk)
    finally:
        os.close(handle)
    return b"".join(chunks).decode("utf-8", "replace")
