"""Whether NCCL took the network that the hosts have: what it said, what the cards counted, and what is there. Pure.

NCCL takes sockets without a word where it cannot use an InfiniBand, RoCE or EFA device, and everything works, many times
slower.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from . import nccl_log
from .codes import Code
from .failure_analysis import failed
from .findings import Problem, cause_and_next
from .nccl_log import Hint, Said
from .ranks.launcher import Report
from .result import GateResult
from .wire import Kind, Nic, Wire

WORTH_COUNTING = 100 << 20
"""Bytes that a card has to have carried before anything follows from where they went."""
ELSEWHERE = 10
"""How many times as much has to have gone elsewhere."""
CALLED: dict[Kind, str] = {"ib": "InfiniBand", "roce": "RoCE", "efa": "EFA", "ethernet": "Ethernet"}


def evaluate(result: GateResult, reports: Sequence[Report]) -> GateResult:
    """The gate's verdict with what was seen of the transport.

    A pass, or a bandwidth that is too low, becomes a failure by name where traffic took another way than the host has.
    """
    if result.backend is None:
        return result
    if result.backend != "nccl":
        skipped = {"skipped": f"backend {result.backend}: NCCL carried nothing"}
        return dataclasses.replace(result, measured={**result.measured, "transport": skipped})
    seen = {report.host: _summary(report.wire) for report in reports if report.wire is not None}
    result = dataclasses.replace(result, measured={**result.measured, "transport": seen})
    if len(reports) < 2:
        return _with_reasons(result, reports)
    found = [*beside_nvlink(reports)]
    found += [problem for report in reports for problem in problems(report.host, report.wire)]
    warnings = (*result.warnings, *(line for report in reports for line in warn(report.host, report.wire)))
    result = dataclasses.replace(result, warnings=warnings)
    if not found or not (result.passed or result.code in (Code.SLOW_LINK, Code.NO_FLOOR)):
        return _with_reasons(result, reports)
    first = found[0]
    cause = "; ".join(dict.fromkeys(problem.cause for problem in found))
    slow = "" if result.passed else f"; {result.cause}"
    text, following = cause_and_next(f"{cause}{slow}", first.remediation, first.host)
    return dataclasses.replace(failed(result, reports, first.code, first.host, text), next=following)


def beside_nvlink(reports: Sequence[Report]) -> Iterator[Problem]:
    """Hosts that took the network though NVLink joins all of them: NCCL does so without a word where one GPU is not ready."""
    domains = {report.wire.domain if report.wire else None for report in reports}
    if len(domains) > 1 or None in domains:
        return
    for report in reports:
        said = report.wire.said if report.wire else None
        if said is None or said.hosts < 2 or said.mnnvl or said.across_nvlink or Hint.MNNVL_DISABLED in said.hints:
            continue
        yield Problem(
            Code.FELL_FROM_NVLINK,
            report.host,
            f"NCCL on {report.host} took {', '.join(said.networks) or 'the network'}, though all hosts are in one NVLink "
            "domain",
            f"On {report.host}: nvidia-smi -q, Fabric; nvidia-imex-ctl -N; ls /dev/nvidia-caps-imex-channels. Where the "
            'network is meant: ray_node_environment: {NCCL_MNNVL_ENABLE: "0"}',
        )


def problems(host: str, wire: Wire | None) -> Iterator[Problem]:
    """What is wrong with the transport of one host of several."""
    if wire is None or wire.said is None or not wire.said.needs_network:
        return
    said, usable = wire.said, wire.rdma()
    if nccl_log.SOCKETS in said.networks and usable and Hint.DISABLED not in said.hints:
        yield Problem(
            Code.FELL_TO_SOCKETS,
            host,
            f"NCCL on {host} fell to sockets over {', '.join(said.interfaces) or 'an interface'} beside {_devices(usable)}"
            f"{_counted(usable)}{_why(said)}",
            _remedy(host, usable[0].kind, said),
        )
    elif nccl_log.SOCKETS not in said.networks and said.networks and usable:
        rdma, sockets = _moved(usable), _moved([nic for nic in wire.nics if nic.kind == "ethernet"])
        if rdma is not None and sockets is not None and sockets > max(WORTH_COUNTING, ELSEWHERE * rdma):
            yield Problem(
                Code.BYTES_ELSEWHERE,
                host,
                f"NCCL on {host} says that it used {', '.join(said.networks)}, and {_devices(usable)} carried {_size(rdma)} "
                f"while interfaces without RDMA carried {_size(sockets)}",
                f"On {host}: rdma statistic; ip -s link, while the gate runs again",
            )


def warn(host: str, wire: Wire | None) -> Iterator[str]:
    """What the operator should know of one host's transport though it may be meant."""
    if wire is None:
        return
    said, usable = wire.said, wire.rdma()
    if said is None or not said.networks:
        yield f"NCCL's log on {host} does not say which network it used: its transport was not checked"
        return
    if not said.needs_network:
        return
    if wire.domain and Hint.MNNVL_DISABLED in said.hints:
        variables = "NCCL_MNNVL_ENABLE (or NCCL_CUMEM_ENABLE, NCCL_P2P_DISABLE)"
        yield f"NCCL on {host} leaves NVLink between hosts alone, as {variables} demands"
    if nccl_log.SOCKETS in said.networks and usable and Hint.DISABLED in said.hints:
        yield f"NCCL on {host} uses sockets beside {_devices(usable)}, as NCCL_IB_DISABLE or NCCL_NET demands"
    if said.staged and nccl_log.SOCKETS not in said.networks:
        yield (
            f"NCCL on {host} sends over the network through the host's memory ({said.staged} of "
            f"{said.direct + said.staged} connections without GPUDirect RDMA): load nvidia_peermem, or see to DMA-BUF and to "
            "where cards and GPUs are plugged in"
        )
    rails = [nic for nic in usable if nic.name in said.devices]
    idle = [nic.name for nic in rails if nic.moved == 0]
    if idle and max((nic.moved or 0 for nic in rails), default=0) > WORTH_COUNTING:
        yield f"on {host} {', '.join(idle)} carried nothing while other ports did"


def _with_reasons(result: GateResult, reports: Sequence[Report]) -> GateResult:
    """A bandwidth that is too low, with what NCCL used."""
    if result.code is not Code.SLOW_LINK:
        return result
    shown = [f"{report.host}: {_shown(report.wire.said)}" for report in reports if report.wire and report.wire.said]
    return dataclasses.replace(result, cause=f"{result.cause}; NCCL used, {'; '.join(shown)}") if shown else result


def _shown(said: Said) -> str:
    parts = [", ".join(said.networks) or "no network"]
    if said.gdr is not None:
        parts.append("GPUDirect RDMA" if said.gdr else "no GPUDirect RDMA")
    if said.channels is not None:
        parts.append(f"{said.channels} channels")
    if said.nvls_channels is not None:
        parts.append("NVLS" if said.nvls_channels else "no NVLS")
    if said.shared_memory:
        parts.append("the host's memory between GPUs")
    return ", ".join(parts)


def _summary(wire: Wire) -> dict[str, Any]:
    """JSON-ready: what NCCL said, and the bytes of the cards that carried any."""
    said = wire.said or Said()
    return {
        "networks": list(said.networks),
        "devices": list(said.devices),
        "gdr": said.gdr,
        "channels": said.channels,
        "nvls_channels": said.nvls_channels,
        "mnnvl": said.mnnvl,
        "hints": [str(hint) for hint in said.hints],
        "moved_bytes": {nic.name: nic.moved for nic in wire.nics if nic.moved},
        "nvlink_gbps": wire.nvlink,
        "pcie_gbps": wire.pcie,
    }


def _remedy(host: str, kind: Kind, said: Said) -> str:
    if kind == "efa":
        return (
            f"On {host}, as user lockstep: fi_info -p efa. Install EFA's libfabric and aws-ofi-nccl (libnccl-net.so) where it "
            "lists none, and let the user open /dev/infiniband"
        )
    found = "ibv_devinfo" if Hint.NO_DEVICE in said.hints else "ibv_devinfo -v; show_gids"
    return (
        f"On {host}, as user lockstep: {found}. Install libibverbs1 and ibverbs-providers where it lists no device; where "
        'sockets are meant: ray_node_environment: {NCCL_IB_DISABLE: "1"}'
    )


def _why(said: Said) -> str:
    texts = {
        Hint.NO_DEVICE: "it found no device through libibverbs",
        Hint.PLUGIN_FAILED: "its network plugin failed",
        Hint.NO_PLUGIN: "it found no network plugin (libnccl-net.so)",
    }
    reasons = [text for hint, text in texts.items() if hint in said.hints]
    return f": {', '.join(reasons)}" if reasons else ""


def _counted(usable: Sequence[Nic]) -> str:
    moved = _moved(usable)
    return "" if moved is None else f" (idle: {_size(moved)})" if moved < WORTH_COUNTING else f" ({_size(moved)})"


def _moved(found: Sequence[Nic]) -> int | None:
    """Bytes of all cards; None where one does not count."""
    counts = [nic.moved for nic in found]
    return None if any(count is None for count in counts) else sum(count or 0 for count in counts)


def _devices(found: Sequence[Nic]) -> str:
    listed = ", ".join(nic.name for nic in found[:4]) + (", …" if len(found) > 4 else "")
    rate = f" at {found[0].gbps:g} Gb/s" if found[0].gbps else ""
    return f"{CALLED[found[0].kind]} {listed}{rate}"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
