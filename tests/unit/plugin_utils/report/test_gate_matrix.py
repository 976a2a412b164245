"""The matrix of hosts and gates, from results as a real run's journal has them."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import gate_matrix
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import GateEvent

# Measured by gates of `make demo`, 2026-11-27: the network gate of a1, and the NCCL gate within a1 and across a1 and a2.
NETWORK = {
    "peers": {"a2": {"rtt_ms": 0.104, "clock_skew_seconds": -5e-06, "mtu": 1500, "unreachable": []}},
    "look_up_seconds": 0.002,
    "problems": [],
}
NETWORK_LIMITS = {"look_up_seconds": 1.0, "rtt_ms": 5.0, "clock_skew_seconds": 1.0, "shm_mib": 1024}
ACROSS = {
    "ranks": 2,
    "hosts": ["a1", "a2"],
    "checks": 72,
    "wrong": 0,
    "busbw_gbps": {"all_reduce": 0.4346, "broadcast": 0.7089},
    "seconds": 3.1,
}


def gate(name: str, host: str, verdict: str = "pass", seconds: float = 1.0, **more: Any) -> GateEvent:
    return GateEvent.parse({"gate": name, "host": host, "verdict": verdict, "seconds": seconds, **more}, host)


def test_alike_hosts_share_a_row_and_failing_ones_come_first() -> None:
    found = gate_matrix.matrix([
        *(gate("driver", host) for host in ("a1", "a2", "a3")),
        *(gate("nccl", host, seconds=took) for host, took in (("a1", 1.0), ("a2", 4.0))),
        gate("nccl", "a3", "fail"),
    ])  # fmt: skip
    assert found.columns == ("driver", "NCCL")
    assert [(row.hosts, [cell.verdict for cell in row.cells]) for row in found.rows] == [
        (("a3",), ["pass", "fail"]),
        (("a1", "a2"), ["pass", "pass"]),
    ]
    assert found.rows[1].cells[1].seconds == 4.0
    assert found.failing == 1


def test_a_gate_across_hosts_is_a_column_of_its_own_and_counts_for_each() -> None:
    found = gate_matrix.matrix(
        [gate("nccl", "a1"), gate("nccl", "a1", "timeout", measured=ACROSS), gate("graph", "a2")]
    )
    assert found.columns == ("NCCL", "CUDA graphs", "NCCL across hosts")
    assert {row.hosts: [cell.verdict for cell in row.cells] for row in found.rows} == {
        ("a1",): ["pass", "", "timeout"],
        ("a2",): ["", "pass", "timeout"],
    }


def test_the_last_verdict_counts_and_an_earlier_failure_is_said() -> None:
    (row,) = gate_matrix.matrix([gate("nccl", "a1", "fail"), gate("nccl", "a1")]).rows
    assert (row.cells[0].passed, row.cells[0].failed_before) == (True, True)
    assert gate_matrix.matrix([gate("nccl", "a1"), gate("nccl", "a1", "fail")]).failing == 1


@pytest.mark.parametrize(
    ("measured", "limits", "wanted"),
    [
        (NETWORK, NETWORK_LIMITS, [
            "to a2 round trip 0.104 ms (at most 5 ms)", "to a2 clock difference -5e-06 s (at most 1 s)", "to a2 MTU 1500 ()",
            "name look-up 0.002 s (at most 1 s)",
        ]),
        (ACROSS, {"busbw_gbps": 0.4, "operation": "all_reduce", "source": "x"}, [
            "ranks 2 ()", "results checked 72 ()", "wrong results 0 ()", "bus bandwidth all-reduce 0.4346 GB/s (at least 0.4 GB/s)",
            "bus bandwidth broadcast 0.7089 GB/s ()",
        ]),
        ({"worst_replay_ratio": 2.13}, {"slowest_replay_ratio": 20.0}, ["slowest replay 2.13 times the median (at most 20 times the median)"]),
        ({"driver": "550.127.05", "gpus": 8}, {"driver": "550.127.05", "gpus": 8}, ["driver 550.127.05 (exactly 550.127.05)", "GPUs 8 (at least 8)"]),
        ({"something_new": 3, "list": [1], "nothing": None, "yes": True}, {}, ["something new 3 ()"]),
    ],
)  # fmt: skip
def test_figures_as_text(measured: dict[str, Any], limits: dict[str, Any], wanted: list[str]) -> None:
    shown = gate_matrix.figures(gate("any", "a1", measured=measured, floor=limits))
    assert [f"{figure.name} {figure.value} ({figure.limit})" for figure in shown] == wanted
