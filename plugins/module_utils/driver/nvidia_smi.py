"""What nvidia-smi reports of the GPUs, and how it fails."""

from __future__ import annotations

import re
from typing import Literal, TypedDict

from ..core.commands import CommandResult

# Answered quickly, and understood by every driver since 450.
_FIELDS = ("index", "uuid", "name", "memory.total", "persistence_mode", "pci.bus_id", "driver_version")
QUERY = ("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,nounits")

FailureCode = Literal["timed_out", "not_found", "no_devices", "failed", "unreadable"]
_NO_DEVICES = 6  # nvidia-smi(1): a query to find an object was unsuccessful; QUERY asks for all there are


class Failure(TypedDict):
    """Why nvidia-smi gave no figures.

    ``code``: ``timed_out`` (the driver or a GPU hangs), ``not_found`` (it cannot be started), ``no_devices`` (the
    driver has no GPU), ``failed`` (it ended with an
    error), ``unreadable`` (its output cannot be parsed). ``text``: the cause for people, its own text where it had any.
    """

    code: FailureCode
    text: str


class Gpu(TypedDict):
    """A GPU as the probe lists it; None where the driver does not report it."""

    index: int
    name: str
    uuid: str
    memory_mib: int | None
    pci: str | None
    persistence: bool


def failure(result: CommandResult) -> Failure | None:
    """Why nvidia-smi gave no figures; None when it worked."""
    if result.ok:
        return None
    if result.timed_out:
        return {
            "code": "timed_out",
            "text": f"nvidia-smi gave no answer within {result.seconds:.0f} s: the driver or a GPU hangs",
        }
    lines = (result.stdout.strip() or result.stderr.strip()).splitlines()
    text = lines[0] if lines else f"nvidia-smi ended with {result.returncode}"
    if result.returncode is None:
        return {"code": "not_found", "text": text}
    return {"code": "no_devices" if result.returncode == _NO_DEVICES else "failed", "text": text}


def parse_csv(text: str) -> list[dict[str, str]]:
    """Rows of ``nvidia-smi --query-gpu=… --format=csv,nounits``, by field name without its unit."""
    import csv

    rows = list(csv.reader(text.strip().splitlines(), skipinitialspace=True))
    if not rows:
        return []
    fields = [re.sub(r" \[.*\]$", "", field) for field in rows[0]]
    return [dict(zip(fields, row, strict=False)) for row in rows[1:] if len(row) == len(fields)]


def parse_gpus(text: str) -> list[Gpu]:
    """GPUs from the output of ``QUERY``."""
    return [
        {
            "index": int(row["index"]),
            "name": row["name"],
            "uuid": row["uuid"],
            "memory_mib": int(row["memory.total"]) if row["memory.total"].isdigit() else None,
            "pci": row.get("pci.bus_id"),
            "persistence": row.get("persistence_mode") == "Enabled",
        }
        for row in parse_csv(text)
        if row.get("index", "").isdigit()
    ]
