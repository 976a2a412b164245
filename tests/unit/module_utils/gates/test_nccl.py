"""The NCCL gate's verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import nccl as nccl_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.bandwidth import Floor
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.bisect import Finding
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.events import LocalGemm
from tests.unit.module_utils.gates.rank_reports import busbw, check, ended, pair, step

FIXTURES = Path(__file__).parents[2] / "fixtures" / "nccl-tests"
WRONG = {"index": 0, "observed": 4.0, "expected": 3.0}


CASES = [
    ("good", pair([check("a1", 0)], [check("a2", 1)]), ("pass", "ok", None, None)),
    (
        "only one host sees the wrong sum: that host",
        pair([check("a1", 0)], [check("a2", 1, wrong=1, **WRONG)]),
        ("fail", "wrong_sum", "a2", None),
    ),
    (
        "both see it: the pair",
        pair([check("a1", 0, wrong=1, **WRONG)], [check("a2", 1, wrong=1, **WRONG)]),
        ("fail", "wrong_sum", None, ("a1", "a2")),
    ),
    (
        "both see the block of rank 1 wrong: its host",
        pair(
            [check("a1", 0, 1, "all_gather", from_ranks=(1,), **WRONG)],
            [check("a2", 1, 1, "all_gather", from_ranks=(1,), **WRONG)],
        ),
        ("fail", "wrong_data", "a2", None),
    ),
    (
        "its own GEMM is wrong",
        pair([LocalGemm(0, "a1", 0)], [LocalGemm(1, "a2", 3)]),
        ("fail", "wrong_arithmetic", "a2", None),
    ),
    (
        "wrong, and then it hung: wrong is the cause",
        pair([check("a1", 0)], [check("a2", 1, wrong=1, **WRONG)], status="timeout"),
        ("fail", "wrong_sum", "a2", None),
    ),
    (
        "a rank killed",
        pair([], [ended("a2", 1, -9)], status="failed"),
        ("fail", "rank_killed", "a2", None),
    ),
    (
        "a collective hangs everywhere",
        pair([step("a1", 0, 3, "check")], [step("a2", 1, 3, "check")], status="timeout"),
        ("timeout", "collective_hangs", None, ("a1", "a2")),
    ),
    (
        "the group never forms",
        pair([step("a1", 0, 1, "init")], [step("a2", 1, 1, "init")], status="timeout"),
        ("timeout", "init_hangs", None, ("a1", "a2")),
    ),
]


@pytest.mark.parametrize(("reports", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_evaluate(reports, expected):
    result = nccl_gate.evaluate(reports, None)
    assert (result.verdict, result.code, result.host, result.pair) == expected
    assert bool(result.cause) != result.passed
    assert bool(result.next) != result.passed


@pytest.mark.parametrize(
    ("seconds", "floor", "late", "expected"),
    [
        ((1.0, 1.0), 0.9, 0.0, ("pass", None, None)),
        ((1.0, 2.0), 0.9, 0.0, ("fail", None, ("a1", "a2"))),  # the slowest rank counts
        ((2.0, 2.0), 0.9, 1.8, ("fail", "a2", None)),  # a2 enqueues late
        ((2.0, 2.0), 0.0, 1.8, ("pass", None, None)),
    ],
)
def test_bandwidth(seconds, floor, late, expected):
    reports = pair([busbw("a1", 0, seconds[0])], [busbw("a2", 1, seconds[1], issue=late)])
    result = nccl_gate.evaluate(reports, Floor(floor, "test", "given"))
    assert (result.verdict, result.host, result.pair) == expected
    assert result.measured["busbw_gbps"] == {"all_reduce": 1.0 / max(seconds)}
    assert result.floor["busbw_gbps"] == floor


@pytest.mark.parametrize(
    ("finding", "host", "blamed", "words"),
    [
        (Finding(hosts=("a3",), rounds=3), "a3", None, "3 round(s) of trials name host a3"),
        (Finding(pairs=(("a1", "a4"),), rounds=3), None, ("a1", "a4"), "the pair a1 and a4"),
        (Finding(unclear=("a1", "a2"), rounds=2), None, ("a1", "a2"), "clear all but a1, a2"),
        (Finding(rounds=3, rest=False), None, ("a1", "a2"), "only with more hosts together"),
    ],
)
def test_conclude(finding, host, blamed, words):
    first = nccl_gate.evaluate(pair([check("a1", 0, 1, **WRONG)], [check("a2", 1, 1, **WRONG)]), None)
    result = nccl_gate.conclude(first, finding)
    assert (result.host, result.pair) == (host, blamed)
    assert words in result.cause
    assert result.measured["bisect"]["rounds"] == finding.rounds


def test_nccl_tests_json_gives_the_same_shape():
    document = json.loads((FIXTURES / "2.19.6" / "all_reduce_perf.json").read_text())
    found = nccl_gate.from_nccl_tests(document, "a1", 4.0)
    result = nccl_gate.evaluate([found], Floor(400, "test", "given"))
    assert result.passed
    assert result.backend == "nccl"
    assert result.measured["nccl"] == "2.27.5"
    assert result.measured["checks"] == 3
    assert result.measured["busbw_gbps"]["all_reduce"] == pytest.approx(469.76, rel=1e-3)


def test_nccl_tests_wrong_elements_fail():
    document = json.loads((FIXTURES / "2.19.6" / "all_reduce_perf.json").read_text())
    document["results"][1]["in_place"]["nwrong"] = 2.0
    result = nccl_gate.evaluate([nccl_gate.from_nccl_tests(document, "a1", 4.0)], None)
    assert (result.code, result.host) == ("wrong_sum", "a1")
