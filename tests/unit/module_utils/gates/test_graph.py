"""The graph gate's verdicts tell apart what hangs, errs, differs or drags."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import graph as graph_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import events
from tests.unit.module_utils.gates.rank_reports import ended, error, pair, report, started, step


def replay(host, rank, wrong=False, seconds=0.001, eager=0.001, what="FULL batch 4", mode="FULL", deviation=0.0):
    return events.Replay(rank, host, what, mode, 20, 0.5 if wrong else deviation, 1e-4, wrong, seconds, eager)


def eager(host, rank, wrong=False):
    return events.Eager(rank, host, "batch 4", 4, 0.5 if wrong else 0.0, 2e-4, wrong, 0.001)


def hung(phase, ahead=True):
    """a2 hangs in a phase; a1 waits for it, or hangs there as well."""
    return pair([step("a1", 0, 7, phase, waiting=ahead)], [step("a2", 1, 7, phase)], status="timeout")


CASES = [
    ("good", pair([replay("a1", 0)], [replay("a2", 1)]), ("pass", "ok", None, None)),
    ("capture hangs on one host", hung("capture"), ("timeout", "capture_hangs", "a2", None)),
    ("replay hangs on both", hung("replay", ahead=False), ("timeout", "replay_hangs", None, ("a1", "a2"))),
    ("eager hangs", hung("eager", ahead=False), ("timeout", "eager_bad", None, ("a1", "a2"))),
    ("the group never forms", hung("init", ahead=False), ("timeout", "init_hangs", None, ("a1", "a2"))),
    ("graphs cannot be released", hung("release"), ("timeout", "release_hangs", "a2", None)),
    (
        "capture errs on one host",
        pair([], [error("a2", 1, 7, "capture", "CUDA error: operation failed due to a previous error")], "failed"),
        ("fail", "capture_errors", "a2", None),
    ),
    (
        "replay errs",
        pair([], [error("a2", 1, 7, "replay", "CUDA error")], "failed"),
        ("fail", "replay_errors", "a2", None),
    ),
    ("eager errs", pair([], [error("a2", 1, 2, "eager", "NCCL error")], "failed"), ("fail", "eager_bad", "a2", None)),
    (
        "replays differ on one host",
        pair([replay("a1", 0)], [replay("a2", 1, wrong=True)]),
        ("fail", "wrong_results", "a2", None),
    ),
    (
        "replays differ on both",
        pair([replay("a1", 0, wrong=True)], [replay("a2", 1, wrong=True)]),
        ("fail", "wrong_results", None, ("a1", "a2")),
    ),
    (
        "eager differs, and so do the replays: eager is the cause",
        pair([replay("a1", 0)], [replay("a2", 1, wrong=True), eager("a2", 1, wrong=True)]),
        ("fail", "eager_bad", "a2", None),
    ),
    ("a rank killed", pair([], [ended("a2", 1, -9)], "failed"), ("fail", "rank_killed", "a2", None)),
]


@pytest.mark.parametrize(("reports", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_evaluate(reports, expected):
    result = graph_gate.evaluate(reports)
    assert (result.verdict, result.code, result.host, result.pair) == expected
    assert bool(result.cause) != result.passed


def test_graph_hangs_say_that_eager_is_good():
    assert graph_gate.evaluate(hung("capture")).cause.startswith("eager is good, and with graphs rank 1 on a2 hung")


@pytest.mark.parametrize(
    ("limit", "expected"), [(0.0, ("pass", "ok", None)), (4.0, ("pass", "ok", None)), (2.0, ("fail", "too_slow", "a2"))]
)
def test_too_slow(limit, expected):
    result = graph_gate.evaluate(pair([replay("a1", 0)], [replay("a2", 1, seconds=0.003)]), limit)
    assert (result.verdict, result.code, result.host) == expected


def test_it_says_what_stood_for_a_graph():
    assert graph_gate.evaluate(pair()).measured["graphs"] == "torch.compile on cpu"
    on_gpu = [report("a1", 0, started("a1", 0, backend="nccl", device="NVIDIA H200", nccl="2.27.5"))]
    assert graph_gate.evaluate(on_gpu).measured["graphs"] == "torch.cuda.CUDAGraph"
