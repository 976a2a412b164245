"""Xid and SXid events: the GPU and NVSwitch errors in the kernel's messages since boot."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from ..core.commands import Run, run_command
from ..core.system import kernel_records

Kind = Literal["Xid", "SXid"]
Severity = Literal["fatal", "non_fatal"]
_HEAD = (
    r"NVRM: (?P<kind>Xid) \((?:PCI:)?(?P<xdev>[^)]+)\): (?P<xcode>\d+)"
    r"|(?P<skind>SXid) \((?:PCI:)?(?P<sdev>[^)]+)\): (?P<scode>\d+)"
)
_SEVERITY = r"(?P<severity>non-?fatal|fatal)\b"
_PROCESS = r"pid='?(?P<pid>\d+)'?, name='?(?P<name>[^',]+)"
# Of NVLink 5: "RLW_SRC_TRACK Nonfatal XC1 i0 Link 12 (0x040988e2 0x00000008 …)", the registers intrinfo and errorstatus first.
_NVLINK5 = rf"(?P<unit>[A-Z][A-Z0-9_/]+) {_SEVERITY}.*?\((?P<intrinfo>0x[0-9a-f]+) (?P<status>0x[0-9a-f]+)"
_RECOVERY = r"recovery action changed from 0x[0-9a-f]+ .*?to (?P<action>0x[0-9a-f]+)"
_CONTINUES = r"(Severity (?P<level>\d)\b|Data \{)"  # an SXid goes over three lines; only the first has the word
_DECODED = 0x03F003FF
"""The bits of intrinfo that tell errors of NVLink 5 apart (data/nvlink5_xids.yml)."""


class XidEvent(TypedDict):
    """All events since boot of one kind and code on one device that are of one severity and have the same registers.

    ``device`` is its PCI address; ``severity`` as the kernel worded it, None where it says none; ``unit`` and ``registers``
    (intrinfo, errorstatus) are NVLink 5's; ``recovery`` is the action that Xid 154 names, by NVML's number; ``process`` is who
    used the GPU at the last one; ``last`` is when (RFC 3339); ``message`` the last one.
    """

    kind: Kind
    code: int
    device: str
    severity: Severity | None
    unit: str | None
    registers: list[int]
    recovery: int | None
    process: str | None
    count: int
    last: str
    message: str


def xids(root: Path = Path("/"), run: Run = run_command, deadline: float = 5.0) -> list[XidEvent]:
    """The events since boot, from the kernel's buffer, or from the journal where the buffer has lost the first ones."""
    boot = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    records = kernel_records(root / "dev/kmsg")
    # Of thousands of records the first, which tells whether older ones were lost, and those that matter.
    messages, lost = parse_kmsg("\n".join([*records[:1], *(record for record in records[1:] if "Xid" in record)]), boot)
    if messages and not lost:
        return parse_xids(messages)
    kept = run(["journalctl", "-k", "-b", "-q", "--no-pager", "-o", "short-unix", "-g", "Xid"], deadline)
    return parse_xids(parse_journal(kept.stdout) or messages)


def refusal(since: float, root: Path = Path("/")) -> str | None:
    """Why the module refused a card ``since`` then (seconds after boot), as the kernel's buffer has it; None if it did not."""
    records, _lost = parse_kmsg("\n".join(kernel_records(root / "dev/kmsg")), 0.0)
    return parse_refusal([message for when, message in records if when >= since])


def parse_refusal(messages: Sequence[str]) -> str | None:
    """The last that the module says of a card, by its address or its name; it goes over several lines."""
    sentences: list[list[str]] = []
    inside = False
    for message in messages:
        said = re.match(r"NVRM: ?(.*)$", message.strip())
        if said and re.match(r"The NVIDIA (?:GPU \S+ \(PCI ID:|\S.* GPU installed in this system is)", said[1]):
            sentences.append([])
            inside = True
        inside = inside and said is not None
        if inside and said:
            sentences[-1].append(said[1].strip())
            inside = not said[1].rstrip().endswith(".")
    return " ".join(" ".join(sentences[-1]).split()) if sentences else None


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
    """Events from kernel messages, by kind, code and device."""
    events: dict[tuple[Any, ...], XidEvent] = {}
    begun: set[tuple[str, str, int]] = set()
    for when, message in sorted(messages):
        match = re.search(_HEAD, message)
        if not match:
            continue
        event = _event(match, message, when)
        place = (event["kind"], event["device"], event["code"])
        continues = re.match(_CONTINUES, message[match.end() :].lstrip(", "))
        if continues and (place in begun or not continues["level"]):
            continue
        if continues:  # the buffer begins after the line that had the word
            event["severity"] = "non_fatal" if continues["level"] == "0" else "fatal"
        begun.add(place)
        intrinfo, status = [*event["registers"], 0, 0][:2]
        key = (*place, event["severity"] or "", event["unit"] or "", intrinfo & _DECODED, status)
        event["count"] += events[key]["count"] if key in events else 0
        events[key] = event
    return [events[key] for key in sorted(events)]


def _event(head: re.Match[str], message: str, when: float) -> XidEvent:
    text = message[head.end() :].lstrip(", ")
    nvlink = re.search(_NVLINK5, text, re.IGNORECASE)
    worded = nvlink or re.match(_SEVERITY, text, re.IGNORECASE)
    recovery = re.search(_RECOVERY, text)
    process = re.search(_PROCESS, text)
    severity: Severity | None = None
    if worded:
        severity = "non_fatal" if worded["severity"].lower().startswith("non") else "fatal"
    return {
        "kind": cast(Kind, head["kind"] or head["skind"]),
        "code": int(head["xcode"] or head["scode"]),
        "device": head["xdev"] or head["sdev"],
        "severity": severity,
        "unit": nvlink["unit"] if nvlink else None,
        "registers": [int(nvlink["intrinfo"], 16), int(nvlink["status"], 16)] if nvlink else [],
        "recovery": int(recovery["action"], 16) if recovery else None,
        "process": f"{process['name']} (pid {process['pid']})" if process else None,
        "count": 1,
        "last": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(when))),
        "message": message[head.start() :].strip(),
    }
