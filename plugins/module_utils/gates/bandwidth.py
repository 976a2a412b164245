"""Bus bandwidth by nccl-tests' definition, and the floor that it is compared with. Pure.

The floors are rows of ``data/busbw_floors.yml``, each with its source and confidence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TypedDict

from ..driver.cards import is_card
from ..driver.versions import ReleaseKey, release_key

HOLDS_FROM = 256 << 20
"""Bytes of a message from which floors hold; smaller ones do not fill a link."""
_NEARLY = 0.9
"""A network counts as one of a row's rate from this share on."""


class NoFloor(Exception):
    """No row fits; the message says what is missing and what to do."""


@dataclasses.dataclass(frozen=True)
class Floor:
    """A bandwidth floor in 10^9 bytes per second of busbw, and where it comes from.

    ``gbps`` 0 means that nothing is demanded; below ``warn`` the operator is warned, and the gate passes.
    """

    gbps: float
    source: str
    confidence: str
    operation: str = "all_reduce"
    warn: float = 0.0


def busbw(operation: str, size: int, seconds: float, ranks: int) -> float:
    """Bus bandwidth in 10^9 bytes per second (nccl-tests doc/PERFORMANCE.md).

    Args:
        operation: one that ranks measure (``ranks.collectives``).
        size: bytes, the larger of the buffers sent and received by one rank, as nccl-tests counts.
        seconds: of one call.
        ranks: number of ranks; with one rank nothing crosses a bus and the result is 0.
    """
    factor = {
        "all_reduce": 2 * (ranks - 1) / ranks,
        "all_gather": (ranks - 1) / ranks,
        "reduce_scatter": (ranks - 1) / ranks,
        "broadcast": 1.0 if ranks > 1 else 0.0,
    }[operation]
    return size / seconds / 1e9 * factor


class _Figure(TypedDict):
    link: str
    operation: str
    floor_gbps: float
    source: str
    confidence: str


class Row(_Figure, total=False):
    """One row of data/busbw_floors.yml; the file says what its keys mean."""

    gpu: str | None
    gpus_per_host: int | None
    across_hosts: bool
    hosts: int
    network_gbps: float
    nccl_min: str | None
    warn_gbps: float


def choose(
    rows: Iterable[Row],
    *,
    gpu: str | None,
    link: str,
    gpus_per_host: int,
    hosts: int,
    nccl: str | None,
    network_gbps: float | None = None,
    size: int | None = None,
    given: float | None = None,
) -> Floor:
    """The floor for this machine.

    Args:
        rows: of the data file.
        gpu: the card's name as nvidia-smi gives it; None where there is none (gloo).
        link: what the traffic crosses: ``nvlink``, ``pcie``, ``ib``, ``roce``, ``efa``, ``tcpx``, ``tcpxo``, ``ethernet`` or
            ``cpu``.
        gpus_per_host: ranks on each host.
        hosts: hosts that take part.
        nccl: NCCL's version, such as ``2.27.5``.
        network_gbps: 10^9 bits per second of the network for each GPU; None where that is not known, which fits any row.
        size: bytes of the messages; None for large ones.
        given: a floor that the operator gave; it wins.

    Raises:
        NoFloor: the card is unknown, or known only over other links or with other numbers of GPUs.
    """
    if given is not None:
        return Floor(given, "given by the operator", "given")
    if gpus_per_host * hosts == 1:
        return Floor(0.0, "one rank: nothing crosses a bus", "certain")
    if gpu is None:
        link = "cpu"
    if size is not None and size < HOLDS_FROM and gpu is not None:
        return Floor(0.0, f"messages of {size} bytes: floors hold from {HOLDS_FROM >> 20} MiB", "certain")
    fitting = [row for row in rows if _fits(row, gpu, link, gpus_per_host, hosts, nccl, network_gbps)]
    if not fitting:
        raise NoFloor(
            f"no busbw floor is known for {gpu or 'gloo'} over {link}, {gpus_per_host} GPUs a host on {hosts} host(s), "
            f"NCCL {nccl or 'unknown'}: give one (floor_gbps), or add a row to data/busbw_floors.yml"
        )
    best = max(fitting, key=_rank)
    return Floor(
        float(best["floor_gbps"]),
        str(best["source"]),
        str(best["confidence"]),
        str(best["operation"]),
        float(best.get("warn_gbps") or 0.0),
    )


def _rank(row: Row) -> tuple[int, ReleaseKey, float]:
    """The row that names the card most exactly, then the newest NCCL; of those alike, the one that demands least."""
    return len(row.get("gpu") or ""), release_key(row.get("nccl_min") or "0"), -float(row["floor_gbps"])


def _fits(
    row: Row,
    gpu: str | None,
    link: str,
    gpus_per_host: int,
    hosts: int,
    nccl: str | None,
    network_gbps: float | None,
) -> bool:
    card, network = row.get("gpu"), row.get("network_gbps")
    if row["link"] != link or (card and not is_card(card, gpu or "")):
        return False
    if row.get("gpus_per_host") not in (None, gpus_per_host):
        return False
    if bool(row.get("across_hosts")) != (hosts > 1) or hosts > (row.get("hosts") or hosts):
        return False
    if network and network_gbps is not None and network_gbps < _NEARLY * network:
        return False
    return nccl is None or release_key(nccl) >= release_key(row.get("nccl_min") or "0")
