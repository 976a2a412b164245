"""The NCCL gate's verdicts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import nccl as nccl_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.bandwidth import Floor
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.bisect import Finding
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.events import Busbw, Check, LocalGemm, Started
from tests.unit.module_utils.gates.codes_of_gates import OF_GATE
from tests.unit.module_utils.gates.rank_reports import busbw, check, ended, error, pair, report, step

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
    (
        "torch never loads: that is no collective",
        pair([step("a1", 0, 0, "load", "torch")], [step("a2", 1, 0, "load", "torch")], status="timeout"),
        ("timeout", "init_hangs", None, ("a1", "a2")),
    ),
    (
        "a collective raises an error",
        pair([], [error("a2", 1, 3, "check", "ncclInternalError")], status="failed"),
        ("fail", "collective_error", "a2", None),
    ),
    (
        "the group cannot be formed",
        pair([], [error("a2", 1, 1, "init", "ncclSystemError")], status="failed"),
        ("fail", "init_failed", "a2", None),
    ),
    (
        "progress at the deadline blames nobody",
        pair([step("a1", 0, 3, "check", at=1059.0)], [], status="timeout"),
        ("timeout", "out_of_time", None, ("a1", "a2")),
    ),
    (
        "a host is lost, whatever was wrong before",
        [*pair([check("a1", 0, wrong=1, **WRONG)])[:1], report("a2", 1, status="lost")],
        ("fail", "host_lost", "a2", None),
    ),
    (
        "killed, and wrong before: killed is the cause",
        pair([], [check("a2", 1, wrong=1, **WRONG), ended("a2", 1, -9)], status="failed"),
        ("fail", "rank_killed", "a2", None),
    ),
    (
        "a wrong GEMM explains wrong sums",
        pair([check("a1", 0, wrong=1, **WRONG), LocalGemm(0, "a1", 2)], [check("a2", 1, wrong=1, **WRONG)]),
        ("fail", "wrong_arithmetic", "a1", None),
    ),
    (
        "one host of three sees a wrong sum, which may be any link's doing",
        [*pair([], [check("a2", 1, wrong=1, **WRONG)]), report("a3", 2)],
        ("fail", "wrong_sum", None, None),
    ),
    (
        "one host alone",
        [report("a1", 0, check("a1", 0, 1, "reduce_scatter"), check("a1", 1, 1, "reduce_scatter"), here=2)],
        ("fail", "wrong_sum", "a1", None),
    ),
    (
        "two of three hosts see the block of the third's second rank wrong, among others",
        [
            report("a1", 0, check("a1", 0, 1, "broadcast", from_ranks=(1, 3)), here=2),
            report("a2", 2, here=2),
            report("a3", 4, check("a3", 4, 1, "broadcast", from_ranks=(3,)), check("a3", 5, 1, "broadcast"), here=2),
        ],
        ("fail", "wrong_data", "a2", None),
    ),
    (
        "one host of three sees one rank's block wrong: its sender or the link, so nobody alone",
        [*pair([], [check("a2", 1, 1, "all_gather", from_ranks=(0,))]), report("a3", 2)],
        ("fail", "wrong_data", None, None),
    ),
    (
        "two GEMMs are wrong: the first",
        pair([LocalGemm(0, "a1", 1)], [LocalGemm(1, "a2", 3)]),
        ("fail", "wrong_arithmetic", "a1", None),
    ),
    (
        "two collectives are wrong: the first names the kind",
        pair([check("a1", 0, 1, "all_gather")], [check("a2", 1, 2)]),
        ("fail", "wrong_data", None, ("a1", "a2")),
    ),
    (
        "blocks of several ranks are wrong",
        pair(
            [check("a1", 0, 1, "all_gather", from_ranks=(0, 1))], [check("a2", 1, 1, "all_gather", from_ranks=(0, 1))]
        ),
        ("fail", "wrong_data", None, ("a1", "a2")),
    ),
]


@pytest.mark.parametrize(("reports", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_evaluate(reports, expected):
    result = nccl_gate.evaluate(reports, None)
    assert (result.verdict, result.code, result.host, result.pair) == expected
    assert result.code in OF_GATE["nccl"]
    assert bool(result.cause) != result.passed
    assert bool(result.next) != result.passed


@pytest.mark.parametrize(
    ("title", "cause"),
    [
        ("a wrong GEMM explains", "a1: local integer GEMM wrong (compute fault), no peer involved"),
        (
            "both see it",
            "all_reduce of bfloat16, 64 bytes, gave 1 wrong elements on ranks 0, 1 (a1, a2): element 0 is 4, expected 3",
        ),
        ("two collectives", "all_gather of bfloat16, 64 bytes, gave 1 wrong elements on ranks 0, 1 (a1, a2)"),
        (
            "only one host sees",
            "all_reduce of bfloat16, 64 bytes, gave 1 wrong elements on rank 1 (a2): element 0 is 4, expected 3",
        ),
        ("one host alone", "reduce_scatter of bfloat16, 64 bytes, gave 1 wrong elements on ranks 0, 1 (a1)"),
    ],
)
def test_the_cause(title, cause):
    reports = next(case[1] for case in CASES if case[0].startswith(title))
    assert nccl_gate.evaluate(reports, None).cause == cause


def test_figures():
    reports = pair(
        [LocalGemm(0, "a1", 0), check("a1", 0), busbw("a1", 0, 1.0), busbw("a1", 0, 2.0, "broadcast")],
        [LocalGemm(1, "a2", 1), check("a2", 1, 2), busbw("a2", 1, 1.5), busbw("a2", 1, 1.0, "broadcast")],
    )
    reports[1] = dataclasses.replace(reports[1], seconds=7.0, evidence=("/e/1",))
    result = nccl_gate.evaluate(reports, None)
    assert (result.seconds, result.evidence, result.backend, result.floor) == (7.0, ("/e/1",), "gloo", {})
    assert result.measured == {
        "ranks": 2,
        "hosts": ["a1", "a2"],
        "checks": 2,
        "wrong": 2,
        "busbw_gbps": {"all_reduce": 0.6667, "broadcast": 0.5},
        "devices": ["cpu"],
        "nccl": None,
        "seconds": 7.0,
    }


def test_bandwidth_that_was_not_measured_is_below_every_floor():
    result = nccl_gate.evaluate(pair(), Floor(0.5, "test", "given"))
    assert (result.code, result.pair) == ("slow_link", ("a1", "a2"))
    assert result.cause == "busbw of all_reduce over a1, a2: not measured, floor 0.5 GB/s (test)"


@pytest.mark.parametrize(
    ("issue", "cause"),
    [
        (1.01, "busbw of all_reduce over a1, a2: 0.5 GB/s, floor 0.9 GB/s (test); a2 is a straggler: enqueues late"),
        (1.0, "busbw of all_reduce over a1, a2: 0.5 GB/s, floor 0.9 GB/s (test)"),
    ],
)
def test_a_straggler_spends_more_than_half_of_each_call_before_it_has_enqueued_it(issue, cause):
    reports = pair(
        [busbw("a1", 0, 2.0), busbw("a1", 0, 2.0, "broadcast", issue=1.9)], [busbw("a2", 1, 2.0, issue=issue)]
    )
    assert nccl_gate.evaluate(reports, Floor(0.9, "test", "given")).cause == cause


def test_stragglers_everywhere_are_none_and_a_single_host_is_to_blame_anyway():
    both = pair([busbw("a1", 0, 2.0, issue=1.9)], [busbw("a2", 1, 2.0, issue=1.9)])
    assert nccl_gate.evaluate(both, Floor(0.9, "test", "given")).pair == ("a1", "a2")
    alone = [report("a1", 0, busbw("a1", 0, 2.0, issue=1.9), busbw("a1", 1, 2.0), here=2)]
    result = nccl_gate.evaluate(alone, Floor(0.9, "test", "given"))
    assert (result.host, "straggler" in result.cause) == ("a1", False)


@pytest.mark.parametrize(
    ("floor", "warn", "warnings"),
    [
        (0.5, 0.0, ()),
        (0.5, 0.5, ()),
        (0.4, 0.6, ("busbw of all_reduce is 0.5 GB/s, below 0.6 GB/s, though not 0.4 (test)",)),
    ],
)
def test_bandwidth_at_its_floor_passes_and_below_the_next_one_warns(floor, warn, warnings):
    result = nccl_gate.evaluate(pair([busbw("a1", 0, 2.0)]), Floor(floor, "test", "given", warn=warn))
    assert (result.passed, result.warnings) == (True, warnings)


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
    ("finding", "host", "blamed", "fragment"),
    [
        (Finding(hosts=("a3",), rounds=3), "a3", None, "3 round(s) of trials name host a3"),
        (Finding(hosts=("a3", "a4"), rounds=3), "a3", None, "name host a3, host a4"),
        (Finding(pairs=(("a1", "a4"),), rounds=3), None, ("a1", "a4"), "the pair a1 and a4"),
        (Finding(pairs=(("a1", "a4"), ("a2", "a3")), rounds=3), None, ("a1", "a4"), "the pair a2 and a3"),
        (Finding(unclear=("a1", "a2"), rounds=2), None, ("a1", "a2"), "clear all but a1, a2"),
        (Finding(rounds=3, rest=False), None, ("a1", "a2"), "only with more hosts together"),
    ],
)
def test_conclude(finding, host, blamed, fragment):
    first = nccl_gate.evaluate(pair([check("a1", 0, 1, **WRONG)], [check("a2", 1, 1, **WRONG)]), None)
    result = nccl_gate.conclude(first, finding)
    assert (result.host, result.pair) == (host, blamed)
    assert fragment in result.cause
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


def test_without_a_bisection_the_first_verdict_stands():
    first = nccl_gate.evaluate(pair([check("a1", 0, 1)], [check("a2", 1, 1)]), None)
    assert nccl_gate.conclude(first, None) is first
    assert nccl_gate.conclude(first, Finding(hosts=("a2",))).next.endswith("--limit a2")


def test_nccl_tests_wrong_elements_fail():
    document = json.loads((FIXTURES / "2.19.6" / "all_reduce_perf.json").read_text())
    document["results"][1]["in_place"]["nwrong"] = 2.0
    result = nccl_gate.evaluate([nccl_gate.from_nccl_tests(document, "a1", 4.0)], None)
    assert (result.code, result.host) == ("wrong_sum", "a1")
    assert result.cause == "all_reduce of float, 32768 bytes, gave 2 wrong elements on rank 0 (a1)"


@pytest.mark.parametrize(
    ("config", "ranks"),
    [({"nthreads": 1, "ngpus": 8}, 8), ({"nthreads": 2, "ngpus": 4}, 8), ({"nthreads": 0, "ngpus": 0}, 2)],
)
def test_what_nccl_tests_measured(config, ranks):
    """In place, of the largest message; out of place where it did not measure in place, and 0 where it checked nothing."""
    document = json.loads((FIXTURES / "2.19.6" / "all_reduce_perf.json").read_text())
    document["config"].update(config)
    document["config"]["devices"].append({"device_info": "another"})
    document["results"][0]["in_place"]["nwrong"] = None
    document["results"][1]["in_place"] = None
    document["results"].reverse()
    found = nccl_gate.from_nccl_tests(document, "a1", 4.0)
    assert (found.host, found.first, found.here, found.status, found.seconds) == ("a1", 0, ranks, "done", 4.0)
    assert found.events == (
        Started(0, "a1", "nccl", "NVIDIA H100 80GB HBM3", "2.27.5"),
        *(Check(0, "a1", "all_reduce", "float", size, 0) for size in (536870912, 32768, 8)),
        Busbw(0, "a1", "all_reduce", 536870912, 0.002),
    )
    document["results"][0]["in_place"], document["config"]["devices"] = None, []
    started, *_, measured = nccl_gate.from_nccl_tests(document, "a1", 4.0).events
    assert (started.device, measured.seconds) == ("unknown", 0.00202)


@pytest.mark.parametrize(
    ("number", "text"), [(22705, "2.27.5"), (20000, "2.0.0"), (29999, "2.99.99"), (22900, "2.29.0")]
)
def test_nccl_version_code(number, text):
    assert nccl_gate.nccl_number(number) == text
