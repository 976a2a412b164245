"""Which operating system a host runs, and reading what its kernel shows as files."""

from __future__ import annotations

from pathlib import Path

OS_RELEASE = Path("/etc/os-release")


def os_release(path: Path = OS_RELEASE) -> dict[str, str]:
    """The fields of os-release(5), such as ``ID``, ``ID_LIKE`` and ``VERSION_ID``, without their quotes."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    fields = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name: value.strip("\"'") for name, _, value in fields}


def read_text(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
