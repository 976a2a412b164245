"""What a host observes of the network to its peers: the JSON that ``network_probe`` writes and ``network`` evaluates."""

from __future__ import annotations

from typing import TypedDict


class NameLookup(TypedDict):
    """Forward and reverse look-up of a peer: what is wrong, and how long both took."""

    problem: str | None
    seconds: float


class Interface(TypedDict):
    """The declared interface: whether it owns the declared address, which interfaces do, its MTU."""

    name: str
    owns: bool
    owners: list[str]
    mtu: int


class Clock(TypedDict, total=False):
    """Round trips to a peer, and its clock minus ours; absent where it did not answer."""

    rtt_ms: float
    clock_skew_seconds: float


class Peer(Clock):
    """What asking one peer gave.

    ``silent``: why its control port gave no answer, or None. ``unreachable``: its ports that accept no connection.
    ``mtu``: largest packet in bytes that came through, None when none did.
    """

    silent: str | None
    unreachable: list[int]
    zone: str | None
    mtu: int | None


class UnitLimits(TypedDict):
    """Memlock (bytes, None for no limit) and shared memory (MiB, None where unknown) as a unit's processes see them."""

    installed: bool
    memlock_bytes: int | None
    shm_mib: int | None


class RdmaPort(TypedDict):
    """One RDMA port, the model of its card (``MT4129``), and its GIDs that are set, with their types."""

    device: str
    port: str
    state: str
    rate: str
    link_layer: str
    model: str
    gids: dict[str, dict[str, str]]


class Observations(TypedDict):
    """Everything that a host observes.

    ``complaints``: by peer, the ports of this host that it could not reach.
    """

    interface: Interface
    names: dict[str, NameLookup]
    peers: dict[str, Peer]
    complaints: dict[str, list[int]]
    limits: dict[str, UnitLimits]
    rdma: list[RdmaPort]
    control_error: str | None
