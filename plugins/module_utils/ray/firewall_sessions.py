"""Connections that came in while no packet filter was loaded: found, and ended, once it is back.

The filter lets replies pass and no more. But where the kernel tracked nothing meanwhile, what this host sends first makes a
connection look like one of its own: a subscriber of vLLM's sockets would go on to be served.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.commands import Run, run_command

if TYPE_CHECKING:
    Address = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTEN = "0A"
DEADLINE = 5.0


@dataclasses.dataclass(frozen=True)
class Socket:
    """A TCP socket of this host; ``peer_port`` is 0 for one that listens."""

    port: int
    peer: Address
    peer_port: int
    listens: bool


def parse(text: str) -> list[Socket]:
    """The sockets of /proc/net/tcp or tcp6."""
    found = []
    for line in text.splitlines()[1:]:
        _, local, remote, state = line.split()[:4]
        peer, _, peer_port = remote.rpartition(":")
        found.append(Socket(int(local.rpartition(":")[2], 16), _address(peer), int(peer_port, 16), state == LISTEN))
    return found


def _address(digits: str) -> Address:
    """The kernel prints each word of an address in the machine's order (little-endian on all that Lockstep supports)."""
    words = [bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address


def uninvited(
    sockets: Sequence[Socket], closed: Iterable[range], peers: Iterable[str], allowed: Mapping[int, Sequence[Network]]
) -> list[Socket]:
    """Those that others began: their port is closed and listened on, so that this host did not choose it for a call of its own.

    Args:
        peers: addresses of the replica's hosts.
        allowed: by port, who may come to it besides.
    """
    shut = list(closed)
    served = {one.port for one in sockets if one.listens and any(one.port in some for some in shut)}
    known = {ipaddress.ip_address(peer) for peer in peers}
    return [
        one
        for one in sockets
        if not one.listens
        and one.port in served
        and one.peer not in known
        and not one.peer.is_loopback
        and not any(one.peer in network for network in allowed.get(one.port, ()))
    ]


def read() -> list[Socket]:
    """All TCP sockets of this host."""
    return [one for table in TABLES if table.exists() for one in parse(table.read_text(encoding="ascii"))]


def end(sockets: Iterable[Socket], run: Run = run_command) -> None:
    """Have the kernel abort them (CONFIG_INET_DIAG_DESTROY, which Debian and Ubuntu set)."""
    for one in sockets:
        where = f"[{one.peer}]" if one.peer.version == 6 else str(one.peer)
        wanted = ["dst", where, "and", "dport", "=", f":{one.peer_port}", "and", "sport", "=", f":{one.port}"]
        run(["ss", "--no-header", "--tcp", "--numeric", "--kill", *wanted], DEADLINE)
