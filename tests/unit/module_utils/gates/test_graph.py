"""The graph gate's verdicts tell apart what hangs, errs, differs or drags."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import graph as graph_gate
from tests.unit.module_utils.gates.rank_reports import ended, error, report, started, step


def figure(host, rank, name="replay", wrong=False, seconds=0.001, eager=0.001, what="FULL batch 4"):
    return {
        "event": "measured",
        "name": name,
        "host": host,
        "rank": rank,
        "what": what,
        "mode": "FULL",
        "batch": 4,
        "replays": 20,
        "deviation": 0.5 if wrong else 0.0,
        "tolerance": 1e-4,
        "wrong": wrong,
        "seconds": seconds,
        "eager_seconds": eager,
    }


def pair(first=(), second=(), status="done"):
    return [
        report("a1", 0, started("a1", 0), *first, status=status),
        report("a2", 1, started("a2", 1), *second, status=status),
    ]


def stood(phase, ahead=True):
    """a2 stands still in a phase; a1 waits for it, or stands there as well."""
    return pair([step("a1", 0, 7, phase, waiting=ahead)], [step("a2", 1, 7, phase)], status="timeout")


CASES = [
    ("good", pair([figure("a1", 0)], [figure("a2", 1)]), ("pass", "ok", None, None)),
    ("capture hangs on one host", stood("capture"), ("timeout", "capture_hangs", "a2", None)),
    ("replay hangs on both", stood("replay", ahead=False), ("timeout", "replay_hangs", None, ("a1", "a2"))),
    ("eager hangs", stood("eager", ahead=False), ("timeout", "eager_bad", None, ("a1", "a2"))),
    ("the group never forms", stood("init", ahead=False), ("timeout", "init_hangs", None, ("a1", "a2"))),
    ("graphs cannot be released", stood("release"), ("timeout", "release_hangs", "a2", None)),
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
        pair([figure("a1", 0)], [figure("a2", 1, wrong=True)]),
        ("fail", "wrong_results", "a2", None),
    ),
    (
        "replays differ on both",
        pair([figure("a1", 0, wrong=True)], [figure("a2", 1, wrong=True)]),
        ("fail", "wrong_results", None, ("a1", "a2")),
    ),
    (
        "eager differs, and so do the replays: eager is the cause",
        pair([figure("a1", 0)], [figure("a2", 1, wrong=True), figure("a2", 1, name="eager", wrong=True)]),
        ("fail", "eager_bad", "a2", None),
    ),
    ("a rank killed", pair([], [ended("a2", 1, -9)], "failed"), ("fail", "rank_killed", "a2", None)),
]


@pytest.mark.parametrize(("reports", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_judge(reports, expected):
    result = graph_gate.judge(reports)
    assert (result.verdict, result.code, result.host, result.pair) == expected
    assert bool(result.cause) != result.passed


def test_graph_hangs_say_that_eager_is_good():
    assert graph_gate.judge(stood("capture")).cause.startswith(
        "eager is good, and with graphs rank 1 on a2 stood still"
    )


@pytest.mark.parametrize(
    ("limit", "expected"), [(0.0, ("pass", "ok", None)), (4.0, ("pass", "ok", None)), (2.0, ("fail", "too_slow", "a2"))]
)
def test_too_slow(limit, expected):
    result = graph_gate.judge(pair([figure("a1", 0)], [figure("a2", 1, seconds=0.003)]), limit)
    assert (result.verdict, result.code, result.host) == expected


def test_it_says_what_stood_for_a_graph():
    assert graph_gate.judge(pair()).measured["graphs"] == "torch.compile on cpu"
    on_gpu = [report("a1", 0, started("a1", 0, backend="nccl", device="NVIDIA H200", nccl="2.27.5"))]
    assert graph_gate.judge(on_gpu).measured["graphs"] == "torch.cuda.CUDAGraph"
