"""What a host's packet filter is made from, and which of the host's other services it closes."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from ..core import processes, records
from ..ray import firewall, firewall_live
from . import probe

_GENERATIONS = 32


class Connection(NamedTuple):
    """How the controller reaches this host: where from, and at which port of this host."""

    client: str
    port: int


class _Limited(TypedDict, total=False):
    egress: list[str]


class Record(_Limited):
    """The content of filter.json, as the role's variables have it."""

    clients: list[str]
    open: list[dict[str, object]]
    ssh_port: int | None


def record(
    clients: Sequence[str],
    routers: Sequence[str],
    openings: Sequence[Mapping[str, Any]],
    egress: Sequence[str] | None,
    connection: Connection | None,
) -> Record:
    """The content of filter.json; ``egress`` is not in it where it is None. Raises ValueError where an entry means nothing."""
    others = [entry for entry in clients if entry != firewall.CONTROLLER]
    own = [connection.client] if connection and len(others) < len(clients) else []
    found: Record = {
        "clients": sorted({*own, *routers, *others}),
        "open": [dict(entry) for entry in openings],
        "ssh_port": connection.port if connection else None,
    }
    if egress is not None:
        found["egress"] = sorted(egress)
    firewall.Settings.parse(found)
    return found


def read() -> dict[str, Any] | None:
    """What lies on this host; None where there is nothing, or nothing usable."""
    try:
        return records.read(firewall_live.SETTINGS)
    except records.RecordError:
        return None


def ssh_connection(proc: Path = processes.PROC, pid: int | None = None) -> Connection | None:
    """The ssh connection that this process works for; None where there is none.

    sudo keeps SSH_CONNECTION from its children, so the environments of the ancestors are read too.
    """
    at = os.getpid() if pid is None else pid
    for _ in range(_GENERATIONS):
        found = _connection(proc / str(at) / "environ")
        process = processes.read(at, proc)
        if found or process is None or process.parent <= 1:
            return found
        at = process.parent
    return None


def _connection(environ: Path) -> Connection | None:
    try:
        entries = environ.read_bytes().split(b"\0")
    except OSError:
        return None
    text = next((entry.partition(b"=")[2].decode() for entry in entries if entry.startswith(b"SSH_CONNECTION=")), "")
    words = text.split()  # client address, client port, own address, own port: sshd(8)
    if len(words) != 4 or not words[3].isdigit():
        return None
    return Connection(words[0].partition("%")[0].removeprefix("::ffff:"), int(words[3]))


def cut_off() -> list[str]:
    """A line for each service that listens on a port which the filter closes to others, and is none of Lockstep's."""
    settings = firewall.Settings.parse(read() or {})
    open_here = {port for one in settings.openings if one.protocol == "tcp" for port in one.ports}
    asked = {port for some in firewall_live.closed() for port in some} - open_here - {settings.ssh_port or 0}
    return [
        f"port {port} of {socket.gethostname()} ({owner}) is open to the replica's hosts alone from now on;"
        f" gpu_host_filter_open: [{{ports: {port}}}] opens it to others"
        for port, owner in sorted(
            _foreign(probe.taken_ports(asked, from_outside=True)).items(), key=lambda item: int(item[0])
        )
    ]


def _foreign(taken: Mapping[str, str]) -> dict[str, str]:
    return {port: owner for port, owner in taken.items() if not owner.startswith("ray::")}
