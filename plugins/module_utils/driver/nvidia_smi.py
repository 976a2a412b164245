"""What nvidia-smi reports of the GPUs, and how it fails."""

from __future__ import annotations

import enum
import re
from typing import Literal, TypedDict

from ..core.commands import CommandResult
from .readings import figure, reading

# Answered quickly, and understood by every driver since 450.
_FIELDS = ("index", "uuid", "name", "memory.total", "persistence_mode", "pci.bus_id", "driver_version")
QUERY = ("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,nounits")

FailureCode = Literal["timed_out", "not_found", "no_devices", "failed", "unreadable"]
WarningCode = Literal["inforom_corrupt", "other"]


class ExitStatus(enum.IntEnum):
    """How nvidia-smi ends: nvidia-smi(1) of 418 to 550, "Return value"; 18 is NVML's own, as seen from hosts."""

    INVALID_ARGUMENT = 2
    NOT_AVAILABLE = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    NO_POWER = 8
    NO_DRIVER = 9
    INTERRUPTS = 10
    NO_LIBRARY = 12
    NO_FUNCTION = 13
    INFOROM_CORRUPT = 14
    LOST = 15
    VERSION_MISMATCH = 18
    OTHER = 255


MEANINGS = {
    ExitStatus.INVALID_ARGUMENT: "it does not know an argument",
    ExitStatus.NOT_AVAILABLE: "the card cannot do what was asked",
    ExitStatus.NO_PERMISSION: "this user may not use the card",
    ExitStatus.NOT_FOUND: "no GPU was found",
    ExitStatus.NO_POWER: "the power cables of a card are not attached",
    ExitStatus.NO_DRIVER: "the driver is not loaded",
    ExitStatus.INTERRUPTS: "the kernel does not get a card's interrupts",
    ExitStatus.NO_LIBRARY: "libnvidia-ml.so.1 was not found",
    ExitStatus.NO_FUNCTION: "libnvidia-ml.so.1 is older than nvidia-smi",
    ExitStatus.INFOROM_CORRUPT: "a card's infoROM is corrupted",
    ExitStatus.LOST: "a card has fallen off the bus or cannot be reached",
    ExitStatus.VERSION_MISMATCH: "the libraries and the loaded module are of two versions",
    ExitStatus.OTHER: "an error inside the driver",
}


class Failure(TypedDict):
    """Why nvidia-smi gave no figures.

    ``code``: ``timed_out`` (the driver or a GPU hangs), ``not_found`` (it cannot be started), ``no_devices`` (the
    driver has no GPU), ``failed`` (it ended with an
    error), ``unreadable`` (its output cannot be parsed). ``text``: the cause for people, its own text where it had any.
    """

    code: FailureCode
    text: str


class SmiWarning(TypedDict):
    """What nvidia-smi warns of beside its figures: a code, the PCI address it names, if any, and its own text."""

    code: WarningCode
    gpu: str | None
    text: str


class Gpu(TypedDict):
    """A GPU as the probe lists it; None, or no text, where the driver does not report it."""

    index: int
    name: str
    uuid: str
    memory_mib: int | None
    pci: str | None
    persistence: bool


def failure(result: CommandResult) -> Failure | None:
    """Why nvidia-smi gave no figures; None when it gave them, be it with a warning (``warnings``)."""
    if result.ok or _only_warns(result):
        return None
    if result.timed_out:
        return {
            "code": "timed_out",
            "text": f"nvidia-smi gave no answer within {result.seconds:.0f} s: the driver or a GPU hangs",
        }
    lines = _prose(result.stdout) or _prose(result.stderr)
    if result.returncode is None:
        return {"code": "not_found", "text": lines[0] if lines else "nvidia-smi cannot be started"}
    status = status_of(result)
    meaning = f": {MEANINGS[status]}" if status else ""
    text = lines[0] if lines else f"nvidia-smi ended with {result.returncode}{meaning}"
    return {"code": "no_devices" if status is ExitStatus.NOT_FOUND else "failed", "text": text}


def answered(result: CommandResult) -> bool:
    """Whether it did what it was asked: it ended with 0, or only warned that a card's infoROM is corrupted."""
    return result.ok or result.returncode == ExitStatus.INFOROM_CORRUPT


def status_of(result: CommandResult) -> ExitStatus | None:
    """The documented meaning of its exit status; None where it has none, or 0."""
    known = {status.value for status in ExitStatus}
    return ExitStatus(result.returncode) if result.returncode in known else None


def warnings(result: CommandResult) -> list[SmiWarning]:
    """What it warns of although it gave figures."""
    found: list[SmiWarning] = []
    for line in _prose(result.stdout) + _prose(result.stderr):
        if not line.upper().startswith("WARNING"):
            continue
        gpu = re.search(r"\bgpu\s+([0-9a-fA-F]+(?::[0-9a-fA-F]+)+\.[0-9a-fA-F])", line, re.IGNORECASE)
        code: WarningCode = "inforom_corrupt" if "inforom" in line.lower() else "other"
        found.append({"code": code, "gpu": gpu[1] if gpu else None, "text": line})
    if _only_warns(result) and not any(warning["code"] == "inforom_corrupt" for warning in found):
        found.append({"code": "inforom_corrupt", "gpu": None, "text": MEANINGS[ExitStatus.INFOROM_CORRUPT]})
    return found


def _only_warns(result: CommandResult) -> bool:
    """Whether it gave figures and ended with 14 because a card's infoROM, which nothing here needs, is corrupted."""
    has_figures = bool(parse_csv(result.stdout)) or "</nvidia_smi_log>" in result.stdout
    return result.returncode == ExitStatus.INFOROM_CORRUPT and has_figures


def _prose(text: str) -> list[str]:
    """The lines that people read: none of a table or of XML."""
    columns = 0
    found = []
    for line in text.splitlines():
        if re.fullmatch(r"[a-z_][\w.]*( \[[^]]*\])?(, [a-z_][\w.]*( \[[^]]*\])?)+", line.strip()):
            columns = line.count(",")
        elif line.strip() and not re.match(r"\s*<", line) and not (columns and line.count(",") == columns):
            found.append(line.strip())
    return found


def driver_version(text: str) -> str | None:
    """The driver's version from the output of ``QUERY``.

    It is the version of user space as well: with libraries of another version than the loaded module nvidia-smi gives no
    figure at all (``ExitStatus.VERSION_MISMATCH``).
    """
    versions = {figure(reading(row.get("driver_version"))) for row in parse_csv(text)}
    return versions.pop() if len(versions) == 1 else None


def parse_csv(text: str) -> list[dict[str, str]]:
    """Rows of ``nvidia-smi --query-gpu=… --format=csv,nounits``, by field name without its unit."""
    lines = text.strip().splitlines()
    if not lines:
        return []
    import csv

    rows = list(csv.reader(lines, skipinitialspace=True))
    fields = [re.sub(r" \[.*\]$", "", field) for field in rows[0]]
    return [dict(zip(fields, row, strict=False)) for row in rows[1:] if len(row) == len(fields)]


def parse_gpus(text: str) -> list[Gpu]:
    """GPUs from the output of ``QUERY``."""
    return [
        {
            "index": int(row["index"]),
            "name": figure(reading(row["name"])) or "",
            "uuid": figure(reading(row["uuid"])) or "",
            "memory_mib": int(row["memory.total"]) if row["memory.total"].isdigit() else None,
            "pci": figure(reading(row.get("pci.bus_id"))),
            "persistence": row.get("persistence_mode") == "Enabled",
        }
        for row in parse_csv(text)
        if row.get("index", "").isdigit()
    ]
