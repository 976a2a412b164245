"""Which busbw floor a rank group is held against: the operator's, a row of the table, or one from line rates. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from . import bandwidth, line_rate
from .ranks import events
from .ranks.launcher import Report
from .wire import Wire

PLUGINS: tuple[tuple[str, str], ...] = (
    (r"(AWS )?Libfabric", "efa"),
    (r"FasTrak", "tcpxo"),
    (r"GPUDirectTCPX", "tcpx"),
    (r"Socket", "ethernet"),
)
"""What crosses the network, by what NCCL calls it; its own ``IB`` and plugins on it are InfiniBand or RoCE, as the host's ports
are. FasTrak and TCPX are Google's (a3-megagpu, a3-highgpu)."""


def of(
    reports: Sequence[Report], rows: Iterable[bandwidth.Row], *, link: str, given: float | None
) -> bandwidth.Floor | None:
    """The floor for what the ranks report that they ran on; None where no rank reported anything.

    Args:
        reports: one for each host.
        rows: of the table.
        link: ``auto``, or what the operator says that the traffic crosses.
        given: the operator's floor.

    Raises:
        bandwidth.NoFloor: no row fits, and the links do not say how fast they are.
    """
    started = next((event for report in reports for event in report.of(events.Started) if event.local_link), None)
    if started is None:
        return None
    wires = [report.wire for report in reports if report.wire is not None]
    crossed = link_of(link, len(reports), started, wires)
    group = line_rate.Group(wires, max(report.here for report in reports), str(started.local_link), crossed)
    seen = len(wires) == len(reports) and started.backend == "nccl"
    try:
        return bandwidth.choose(
            rows,
            gpu=started.device if started.backend == "nccl" else None,
            link=crossed,
            gpus_per_host=group.gpus_per_host,
            hosts=len(reports),
            nccl=started.nccl,
            network_gbps=line_rate.network_gbps(group) if seen and len(reports) > 1 else None,
            size=_smallest(reports),
            given=given,
        )
    except bandwidth.NoFloor:
        by_line_rate = line_rate.floor(group) if seen else None
        if by_line_rate is None:
            raise
        return by_line_rate


def link_of(asked: str, hosts: int, started: events.Started, wires: Sequence[Wire] = ()) -> str:
    """What the slowest part of the traffic crosses: as the operator gave it, as NCCL said, or as a host's first rank saw it."""
    if asked != "auto":
        return asked
    if hosts == 1:
        return str(started.local_link)
    said = [wire.said for wire in wires if wire.said is not None]
    if len(said) == hosts and not any(one.needs_network for one in said):
        return "nvlink"
    networks = {network for one in said for network in one.networks}
    named = {kind for network in networks for pattern, kind in PLUGINS if re.match(pattern, network)}
    return named.pop() if len(named) == len(networks) == 1 else str(started.network_link)


def _smallest(reports: Sequence[Report]) -> int | None:
    """Bytes of the smallest message whose all-reduce was timed; None where none was."""
    sizes = [event.bytes for report in reports for event in report.of(events.Busbw) if event.operation == "all_reduce"]
    return min(sizes, default=None)
