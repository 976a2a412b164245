"""Which operating system a host runs, and reading what its kernel shows as files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

OS_RELEASE = Path("/etc/os-release")


def os_release(path: Path = OS_RELEASE) -> dict[str, str]:
    """The fields of os-release(5), such as ``ID``, ``ID_LIKE`` and ``VERSION_ID``, without their quotes."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    fields = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name: value.strip("\"'") for name, _, value in fields}


def kernel_records(path: Path = Path("/dev/kmsg")) -> list[str]:
    """The records of the kernel's message buffer; none where it may not be read, or is not the kernel's own device."""
    records: list[str] = []
    try:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            return []
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        while True:
            try:
                record = os.read(handle, 8192)
            except BrokenPipeError:  # it was overwritten while we read: the next one is still good
                continue
            except OSError:
                break
            if not record:
                break
            records.append(record.decode("utf-8", "replace").rstrip("\n"))
    finally:
        os.close(handle)
    return records


def uptime(clock: float | str | None, booted: float | str | None) -> float | None:
    """Seconds that a host had been up, by its own clock then and when it booted (Unix seconds); None where one is not known."""
    try:
        return None if clock is None or booted is None else float(clock) - float(booted)
    except ValueError:
        return None


def read_text(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
