"""systemd: what it knows of units, and reporting to it how a ``Type=notify`` unit is doing.

The probe sends this file to every host, so it imports little.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from .commands import Run, run_command

Properties = Mapping[str, str]
RUNNING = ("active", "activating", "reloading")
"""States of a unit in which its process runs."""


class SystemctlError(OSError):
    """systemctl did not answer; the message has its reason."""


def show(
    units: Sequence[str], properties: Sequence[str], *, run: Run = run_command, deadline: float = 10.0
) -> dict[str, Properties]:
    """Properties of units by unit, times as Unix seconds; also for units that do not exist (``LoadState=not-found``).

    Raises:
        SystemctlError: systemctl failed or gave no answer.
    """
    argv = ["systemctl", "show", "--timestamp=unix", f"--property={','.join(['Id', *properties])}", *units]
    result = run(argv, deadline)
    if not result.ok:
        reason = f"no answer within {deadline:g} s" if result.timed_out else result.stderr.strip()
        raise SystemctlError(f"systemctl show: {reason or f'exit status {result.returncode}'}")
    return parse_show(result.stdout)


def parse_show(text: str) -> dict[str, Properties]:
    """Properties by unit from ``systemctl show``: ``Name=value`` lines, a blank line between two units."""
    blocks = (
        {name: value.strip() for name, mark, value in (line.partition("=") for line in block.splitlines()) if mark}
        for block in text.strip().split("\n\n")
    )
    return {block["Id"]: block for block in blocks if "Id" in block}


def credential(name: str) -> Path | None:
    """The file of one of this unit's credentials; None where it was given none."""
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"), name)
    return path if path.exists() else None


def notify(*, ready: bool = False, stopping: bool = False, status: str | None = None) -> bool:
    """Send what is given in one message. Returns whether systemd asked for it and got it.

    Args:
        status: one line for ``systemctl status``.
    """
    import socket

    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    lines = ["READY=1"] * ready + ["STOPPING=1"] * stopping
    if status is not None:
        lines.append("STATUS=" + " ".join(status.split()))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall("\n".join(lines).encode())
    except OSError:
        return False
    return True
