"""What NCCL said, what the cards counted and what the hosts have: where they do not agree, the gate fails by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import nccl_log, transport
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.codes import Code
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.nccl_log import Hint, Said
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.wire import Nic, Wire
from tests.unit.module_utils.gates.codes_of_gates import OF_GATE
from tests.unit.module_utils.gates.rank_reports import report

LOGS = Path(__file__).parents[2] / "fixtures" / "nccl"
GIB = 1 << 30
PASSED = GateResult("nccl", "pass", 9.0, backend="nccl", measured={"ranks": 16})
SLOW = dataclasses.replace(
    PASSED, verdict="fail", code=Code.SLOW_LINK, cause="busbw of all_reduce over a1, a2: 3 GB/s, floor 288"
)


def said(name: str, **changes) -> Said:
    return dataclasses.replace(nccl_log.parse((LOGS / f"{name}.log").read_text()), **changes)


def nic(name, kind="ib", moved: int | None = GIB, gbps=400.0, usable=True) -> Nic:
    return Nic(name, kind, gbps, usable, moved, None if moved is None else 0)


def wire(log: Said | None, *nics: Nic) -> Wire:
    return Wire(log, nics)


ROCE = said("2.27.5-roce")
EFA = said("2.27.3-efa")
SOCKETS = said("2.27.3-efa-to-sockets")
NO_DEVICE = said("2.28.9-one-rank", interfaces=("eth0",), staged=4, hosts=2)
MNNVL = said("2.30.7-mnnvl", hosts=2)
ETH = nic("eth0", "ethernet", 9 * GIB, 25.0)
QUIET = nic("eth0", "ethernet", 1 << 20, 25.0)
GOOD = wire(ROCE, *(nic(name, "roce") for name in ROCE.devices), QUIET)
FELL = wire(NO_DEVICE, nic("mlx5_0", moved=0), nic("mlx5_1", moved=0), ETH)


def joined(seen: Wire, domain: str = "5f3e.1") -> Wire:
    """The same on a host of a rack whose NVLink joins hosts."""
    assert seen.said is not None
    return dataclasses.replace(seen, said=dataclasses.replace(seen.said, hosts=2, hints=()), domain=domain)


def evaluated(*wires: Wire | None, result: GateResult = PASSED) -> GateResult:
    return transport.evaluate(result, [report(f"a{n + 1}", n, wire=each) for n, each in enumerate(wires)])


@pytest.mark.parametrize(
    ("wires", "code", "host", "says", "types"),
    [
        pytest.param((GOOD, GOOD), "ok", None, "", "", id="RoCE"),
        pytest.param((wire(EFA, nic("rdmap16s27", "efa")),) * 2, "ok", None, "", "", id="EFA"),
        pytest.param((wire(NO_DEVICE, ETH),) * 2, "ok", None, "", "", id="sockets, and nothing better"),
        pytest.param((wire(NO_DEVICE, nic("mlx5_0", usable=False), ETH),) * 2, "ok", None, "", "", id="the port is down"),
        pytest.param((wire(MNNVL, nic("mlx5_0", moved=0), ETH),) * 2, "ok", None, "", "", id="NVLink across hosts"),
        pytest.param(
            (joined(GOOD), joined(GOOD)), "fell_from_nvlink", "a1",
            "NCCL on a1 took IB, though all hosts are in one NVLink domain; NCCL on a2 took IB",
            "nvidia-imex-ctl -N", id="NVLink across hosts is left for the network",
        ),
        pytest.param((joined(GOOD), joined(GOOD, "5f3e.2")), "ok", None, "", "", id="two domains"),
        pytest.param((joined(GOOD), GOOD), "ok", None, "", "", id="a host outside of the domain"),
        pytest.param((joined(wire(MNNVL, ETH)),) * 2, "ok", None, "", "", id="NVLink across hosts, as it should be"),
        pytest.param(
            (GOOD, FELL), "fell_to_sockets", "a2",
            "NCCL on a2 fell to sockets over eth0 beside InfiniBand mlx5_0, mlx5_1 at 400 Gb/s (idle: 0 MB): it found no device "
            "through libibverbs", "On a2, as user lockstep: ibv_devinfo. Install libibverbs1", id="libibverbs",
        ),
        pytest.param(
            (wire(SOCKETS, nic("rdmap16s27", "efa", 0, 100.0), ETH), GOOD), "fell_to_sockets", "a1",
            "beside EFA rdmap16s27 at 100 Gb/s (idle: 0 MB): it found no device through libibverbs, its network plugin failed",
            "fi_info -p efa", id="EFA's plugin",
        ),
        pytest.param(
            (wire(NO_DEVICE, nic("mlx5_0", "roce", None), ETH), GOOD), "fell_to_sockets", "a1", "RoCE mlx5_0 at 400 Gb/s: it",
            "NCCL_IB_DISABLE", id="nothing is counted",
        ),
        pytest.param(
            (wire(dataclasses.replace(ROCE, networks=("IB", "Socket")), nic("mlx5_0"), ETH), GOOD),
            "fell_to_sockets", "a1", "(1.1 GB)", "ibv_devinfo -v; show_gids", id="some ranks of a host",
        ),
        pytest.param(
            (wire(ROCE, nic("mlx5_0", "roce", 1 << 20), ETH), GOOD), "bytes_elsewhere", "a1",
            "says that it used IB, and RoCE mlx5_0 at 400 Gb/s carried 1 MB while interfaces without RDMA carried 9.7 GB",
            "rdma statistic", id="the bytes went elsewhere",
        ),
        pytest.param((wire(ROCE, nic("mlx5_0", "roce", None), ETH),) * 2, "ok", None, "", "", id="uncounted is unknown"),
        pytest.param((wire(ROCE, nic("mlx5_0", "roce", 8 * GIB), ETH),) * 2, "ok", None, "", "", id="other traffic beside"),
        pytest.param((None, Wire()), "ok", None, "", "", id="nothing seen"),
    ],
)  # fmt: skip
def test_transport(wires, code, host, says, types) -> None:
    result = evaluated(*wires)
    assert (result.code, result.host, result.passed) == (code, host, code == "ok")
    assert says in result.cause
    assert types in f"{result.cause} {result.next}"
    assert result.code in OF_GATE["nccl"]


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (
            wire(dataclasses.replace(NO_DEVICE, hints=(Hint.DISABLED,)), nic("mlx5_0"), ETH),
            "NCCL on a1 uses sockets beside InfiniBand mlx5_0 at 400 Gb/s, as NCCL_IB_DISABLE or NCCL_NET demands",
        ),
        (wire(dataclasses.replace(ROCE, staged=2), *GOOD.nics), "2 of 6 connections without GPUDirect RDMA"),
        (
            wire(
                ROCE, nic("mlx5_0", "roce"), nic("mlx5_1", "roce", 0), nic("mlx5_2", "roce"), nic("mlx5_9", "roce", 0)
            ),
            "on a1 mlx5_1 carried nothing while other ports did",
        ),
        (
            dataclasses.replace(joined(GOOD), said=dataclasses.replace(ROCE, hosts=2, hints=(Hint.MNNVL_DISABLED,))),
            "NCCL on a1 leaves NVLink between hosts alone, as NCCL_MNNVL_ENABLE (or NCCL_CUMEM_ENABLE, NCCL_P2P_DISABLE) demands",
        ),
        (wire(None, *GOOD.nics), "NCCL's log on a1 does not say which network it used"),
    ],
)
def test_what_may_be_meant_is_a_warning(first: Wire, says: str) -> None:
    result = evaluated(first, GOOD)
    assert result.passed
    assert [line for line in result.warnings if says in line]
    assert evaluated(GOOD, GOOD).warnings == ()


def test_slow_through_sockets_is_called_that() -> None:
    result = evaluated(GOOD, FELL, result=SLOW)
    assert (result.code, result.host) == ("fell_to_sockets", "a2")
    assert "; busbw of all_reduce over a1, a2: 3 GB/s, floor 288. On a2, as user lockstep: " in result.cause


def test_slow_for_another_reason_says_what_nccl_used() -> None:
    result = evaluated(GOOD, GOOD, result=SLOW)
    assert result.code == "slow_link"
    assert result.cause.endswith("; NCCL used, a1: IB, GPUDirect RDMA; a2: IB, GPUDirect RDMA")
    alone = evaluated(wire(said("2.28-nvls", nvls_channels=0, shared_memory=2), QUIET), result=SLOW)
    assert alone.cause.endswith("; NCCL used, a1: no network, 24 channels, no NVLS, the host's memory between GPUs")


def test_another_failure_keeps_its_name() -> None:
    hung = dataclasses.replace(PASSED, verdict="timeout", code=Code.COLLECTIVE_HANGS, cause="all ranks hung")
    result = evaluated(GOOD, FELL, result=hung)
    assert (result.code, result.cause) == ("collective_hangs", "all ranks hung")


def test_within_one_host_no_network_is_demanded() -> None:
    assert evaluated(FELL).passed


@pytest.mark.parametrize(
    ("backend", "shown"), [("gloo", {"skipped": "backend gloo: NCCL carried nothing"}), (None, None)]
)
def test_another_backend_is_skipped_and_says_so(backend: str | None, shown: object) -> None:
    result = evaluated(FELL, FELL, result=dataclasses.replace(PASSED, backend=backend))
    assert result.passed
    assert result.measured.get("transport") == shown


def test_the_result_shows_what_was_seen() -> None:
    shown = evaluated(GOOD, GOOD).measured["transport"]["a1"]
    assert (shown["networks"], shown["gdr"]) == (["IB"], True)
    assert shown["hints"] == ["mnnvl_disabled"]  # its log has NCCL_CUMEM_ENABLE=0
    assert shown["moved_bytes"]["mlx5_0"] == GIB
