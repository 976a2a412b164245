"""Tell systemd how a ``Type=notify`` unit is doing. Does nothing where systemd did not ask."""

from __future__ import annotations

import os
import socket


def notify(*, ready: bool = False, stopping: bool = False, status: str | None = None) -> bool:
    """Send what is given in one message. Returns whether there was somebody to tell.

    Args:
        status: one line for ``systemctl status``.
    """
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return False
    lines = ["READY=1"] * ready + ["STOPPING=1"] * stopping
    if status is not None:
        lines.append("STATUS=" + " ".join(status.split()))
    address = "\0" + where[1:] if where.startswith("@") else where
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(address)
            channel.sendall("\n".join(lines).encode())
    except OSError:
        return False
    return True
