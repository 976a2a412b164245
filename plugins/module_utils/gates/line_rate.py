"""The busbw floor of any card over any network, from what the host's own links say. Pure.

An all-reduce over several hosts sends ``busbw x (hosts - 1) / (ranks - 1)`` over the network for each GPU
(stas00/ml-engineering, network/README.md). Of that line rate healthy clusters show 65 % to 90 % (H100 and B200 over EFA 65 %
and 74 %, GB200 over EFA 77 %, GB300 over RoCE 85 %, H100 over TCPXO 90 %), so half of it is a fault and three fifths are
worth a look.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .bandwidth import Floor
from .wire import Nic, Wire

FAILS_BELOW, WARNS_BELOW = 0.5, 0.6
ALIKE = 0.9
"""Ports count as rails of one network where their rate is at least this share of the fastest: one for management is none."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Who takes part, and what joins them.

    Attributes:
        hosts: their links.
        gpus_per_host: ranks on each host.
        local: what joins the GPUs of one host: ``nvlink`` or ``pcie``.
        network: what joins the hosts; ``nvlink`` where NVLink reaches that far.
    """

    hosts: Sequence[Wire]
    gpus_per_host: int
    local: str
    network: str

    @property
    def ranks(self) -> int:
        return len(self.hosts) * self.gpus_per_host


def rails(wire: Wire, network: str) -> tuple[Nic, ...]:
    """The ports of one host that carry a collective's traffic, as far as that is known: the usable ones of the fastest kind.

    Where a variable names the devices for NCCL, those that it took.
    """
    said = wire.said
    if network in ("ib", "roce", "efa"):
        found = [nic for nic in wire.nics if nic.usable and nic.kind == network]
        if said is not None and said.chosen and said.devices:
            found = [nic for nic in found if nic.name in said.devices]
    else:
        interfaces = said.interfaces if said is not None else ()
        found = [nic for nic in wire.nics if nic.usable and nic.kind == "ethernet" and nic.name in interfaces]
    fastest = max((nic.gbps or 0.0 for nic in found), default=0.0)
    return tuple(nic for nic in found if nic.gbps and nic.gbps >= ALIKE * fastest)


def network_gbps(group: Group) -> float | None:
    """10^9 bits per second of the network for each GPU, on the host that has least; None where one does not say."""
    shares = [sum(nic.gbps or 0.0 for nic in rails(wire, group.network)) / group.gpus_per_host for wire in group.hosts]
    return min(shares) if shares and all(shares) else None


def floor(group: Group) -> Floor | None:
    """The floor for all_reduce from line rates; None where the links that the traffic crosses do not say theirs."""
    limits: dict[str, float] = {}
    if group.gpus_per_host > 1 or (len(group.hosts) > 1 and group.network == "nvlink"):
        kind = "nvlink" if "nvlink" in (group.local, group.network) else "pcie"
        rates = [wire.nvlink if kind == "nvlink" else wire.pcie for wire in group.hosts]
        known = [rate for rate in rates if rate]
        if known and len(known) == len(rates):
            name = "NVLink" if kind == "nvlink" else "PCIe"
            limits[f"{name} of {min(known):g} GB/s a GPU"] = min(known)
        elif len(group.hosts) == 1 or group.network == "nvlink":
            return None
    if len(group.hosts) > 1 and group.network != "nvlink":
        share = network_gbps(group)
        if share is None:
            return None
        limit = share / 8 * (group.ranks - 1) / (len(group.hosts) - 1)
        limits[f"{_shown(group)}: {share:g} Gb/s a GPU, {limit:.4g} GB/s of busbw for {group.ranks} ranks"] = limit
    if not limits:
        return None
    source, lowest = min(limits.items(), key=lambda item: item[1])
    return Floor(
        round(FAILS_BELOW * lowest, 2),
        f"{FAILS_BELOW:.0%} of line rate, as no row of data/busbw_floors.yml fits: {source}",
        "low",
        warn=round(WARNS_BELOW * lowest, 2),
    )


def _shown(group: Group) -> str:
    """``8 x 400 Gb/s roce (mlx5_0, …)`` of the host that has least."""
    least = min(group.hosts, key=lambda wire: sum(nic.gbps or 0.0 for nic in rails(wire, group.network)))
    found = rails(least, group.network)
    names = ", ".join(nic.name for nic in found[:2]) + (", …" if len(found) > 2 else "")
    return f"{len(found)} x {found[0].gbps:g} Gb/s {group.network} ({names})"
