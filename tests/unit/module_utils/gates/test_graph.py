"""The graph gate's verdicts distinguish what hangs, errs, differs or drags."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import graph as graph_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import events, vllm_kernels
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.request import CAPTURED
from tests.unit.module_utils.gates.codes_of_gates import OF_GATE
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
    (
        "killed, and results differed before: killed is the cause",
        pair([], [replay("a2", 1, wrong=True), ended("a2", 1, -9)], "failed"),
        ("fail", "rank_killed", "a2", None),
    ),
    (
        "a host is lost, whatever differed before",
        [*pair([replay("a1", 0, wrong=True)])[:1], report("a2", 1, status="lost")],
        ("fail", "host_lost", "a2", None),
    ),
    (
        "results differ, and then it hangs: that they differ is the cause",
        pair([step("a1", 0, 7, "replay")], [replay("a2", 1, wrong=True), step("a2", 1, 7, "replay")], "timeout"),
        ("fail", "wrong_results", "a2", None),
    ),
    (
        "progress at the deadline blames nobody",
        pair([step("a1", 0, 7, "capture", at=1059.0)], [], "timeout"),
        ("timeout", "out_of_time", None, ("a1", "a2")),
    ),
    (
        "the group cannot be formed",
        pair([], [error("a2", 1, 1, "init", "x")], "failed"),
        ("fail", "init_failed", "a2", None),
    ),
    ("the ranks do not start", [report("a1", 0, status="failed")], ("fail", "init_failed", "a1", None)),
    ("release errs", pair([], [error("a2", 1, 9, "release", "x")], "failed"), ("fail", "release_errors", "a2", None)),
    ("the end errs", pair([], [error("a2", 1, 9, "end", "x")], "failed"), ("fail", "release_errors", "a2", None)),
    ("the end hangs", hung("end"), ("timeout", "release_hangs", "a2", None)),
]


@pytest.mark.parametrize(("reports", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_evaluate(reports, expected):
    result = graph_gate.evaluate(reports)
    assert (result.verdict, result.code, result.host, result.pair) == expected
    assert result.code in OF_GATE["graph"]
    assert bool(result.cause) != result.passed


def test_graph_hangs_say_that_eager_is_good():
    assert graph_gate.evaluate(hung("capture")).cause.startswith("eager is good, and with graphs rank 1 on a2 hung")


@pytest.mark.parametrize(
    ("limit", "expected"), [(0.0, ("pass", "ok", None)), (4.0, ("pass", "ok", None)), (2.0, ("fail", "too_slow", "a2"))]
)
def test_too_slow(limit, expected):
    result = graph_gate.evaluate(pair([replay("a1", 0)], [replay("a2", 1, seconds=0.003)]), limit)
    assert (result.verdict, result.code, result.host) == expected


def test_where_no_ratio_is_given_a_replay_may_take_any_time():
    assert graph_gate.evaluate(pair([replay("a1", 0, seconds=9.0)])).passed


def test_the_result_names_what_stood_for_a_graph():
    assert graph_gate.evaluate(pair()).measured["graphs"] == "called again on cpu"
    on_gpu = [report("a1", 0, started("a1", 0, backend="nccl", device="NVIDIA H200", nccl="2.27.5"))]
    assert graph_gate.evaluate(on_gpu).measured["graphs"] == "torch.cuda.CUDAGraph"


@pytest.mark.parametrize(
    ("title", "cause"),
    [
        ("eager hangs", "no graph was tried: already in eager all ranks hung in eager"),
        ("graphs cannot be released", "rank 1 on a2 hung in release; the others waited"),
        ("replay hangs on both", "eager is good, and with graphs all ranks hung in replay"),
        (
            "capture errs on one host",
            "eager is good, and with graphs rank 1 on a2 failed with RuntimeError: CUDA error: operation failed due to a previous error in capture",
        ),
        ("replay errs", "eager is good, and with graphs rank 1 on a2 failed with RuntimeError: CUDA error in replay"),
        (
            "replays differ on both",
            "FULL batch 4: rank 0 on a1 differs from eager by 0.5 of the largest value, 0.0001 is allowed; seen on a1, a2",
        ),
        (
            "eager differs",
            "batch 4: rank 1 on a2 differs from this rank's own arithmetic without collectives by 0.5 of the largest value, "
            "0.0002 is allowed; seen on a2",
        ),
    ],
)
def test_the_cause(title, cause):
    reports = next(case[1] for case in CASES if case[0].startswith(title))
    assert graph_gate.evaluate(reports).cause == cause


def test_figures():
    reports = pair(
        [
            events.Capture(0, "a1", "FULL batch 4", "FULL", 4, 1.5006),
            events.Capture(0, "a1", "FULL batch 1", "FULL", 1, 0.25),
            replay("a1", 0, deviation=0.25),
            replay("a1", 0, mode="PIECEWISE", seconds=0.003336),
        ],
        [events.Capture(1, "a2", "FULL batch 4", "FULL", 4, 9.0), replay("a2", 1, seconds=0.002)],
    )
    reports[1] = dataclasses.replace(reports[1], seconds=7.0, evidence=("/e/1",))
    result = graph_gate.evaluate(reports, 3.5)
    assert (result.passed, result.seconds, result.evidence) == (True, 7.0, ("/e/1",))
    assert (result.backend, result.floor) == ("gloo", {"slowest_replay_ratio": 3.5})
    assert result.measured == {
        "ranks": 2,
        "hosts": ["a1", "a2"],
        "graphs": "called again on cpu",
        "modes": ["FULL", "PIECEWISE"],
        "captures": 2,
        "replays": 40,
        "worst_deviation": 0.25,
        "capture_seconds": 1.751,
        "worst_replay_ratio": 3.34,
        "seconds": 7.0,
    }
    none = graph_gate.measurements([])
    assert (none["worst_deviation"], none["worst_replay_ratio"]) == (None, 0.0)


def test_the_slowest_of_slow_replays_is_named_and_both_hosts_are_a_pair():
    reports = pair([replay("a1", 0, seconds=0.003)], [replay("a2", 1, seconds=0.004)])
    result = graph_gate.evaluate(reports, 2.0)
    assert result.pair == ("a1", "a2")
    assert result.cause == "FULL batch 4 on a2: a replay takes 4 ms, 4 times eager (1 ms), 2 is allowed"
    assert graph_gate.evaluate(reports, 4.0).passed


def test_times_are_reported_in_milliseconds():
    cause = graph_gate.evaluate([report("a1", 0, replay("a1", 0, seconds=0.999, eager=0.0999))], 2.0).cause
    assert cause == "FULL batch 4 on a1: a replay takes 999 ms, 10 times eager (99.9 ms), 2 is allowed"


def test_an_eager_too_quick_to_be_timed_makes_any_replay_slow():
    assert graph_gate.evaluate(pair([replay("a1", 0, eager=0.0)]), 100.0).code == "too_slow"


ONE = events.Skipped(0, "a1", "symmetric_memory", "one rank: vLLM has nothing to reduce")


def kind(reports):
    return graph_gate.evaluate(reports)


def test_one_verdict_over_all_that_was_captured():
    results = {
        "plain": kind(pair([replay("a1", 0)])),
        "compiled": kind(pair([replay("a1", 0, mode="FULL of compiled code", deviation=0.01)])),
        "symmetric_memory": kind(pair([ONE])),
    }
    result = graph_gate.together(results, ("plain", "compiled", "symmetric_memory"))
    assert (result.passed, result.seconds) == (True, 9.0)
    whole = graph_gate.together({name: dataclasses.replace(one, seconds=1.0014) for name, one in results.items()}, ())
    assert whole.seconds == 3.004  # s, to the millisecond
    assert result.measured["captured"]["compiled"] == {
        "verdict": "pass", "seconds": 3.0, "captures": 0, "replays": 20, "worst_deviation": 0.01,
    }  # fmt: skip
    assert result.measured["captured"]["symmetric_memory"]["skipped"] == f"symmetric_memory: {ONE.reason}"
    assert graph_gate.together({}, ("plain",)) is None


def test_what_never_began_proves_nothing():
    result = graph_gate.together({"plain": kind(GOOD)}, ("plain", "compiled"))
    assert (result.verdict, result.code) == ("fail", "could_not_run")
    assert result.cause == "compiled: never began, though the ranks ended well"


GOOD = pair([replay("a1", 0)], [replay("a2", 1)])
WRONG = pair([replay("a1", 0)], [replay("a2", 1, wrong=True, what="custom_all_reduce 256")])


@pytest.mark.parametrize(
    ("results", "code", "said", "unsaid"),
    [
        (
            {"plain": GOOD, "custom_all_reduce": WRONG, "symmetric_memory": GOOD},
            "wrong_results",
            "; plain, symmetric_memory good: --disable-custom-all-reduce turns off what fails, by vllm_server_args: "
            "{disable-custom-all-reduce: true}",
            None,
        ),
        ({"plain": GOOD, "custom_all_reduce": hung("capture")}, "capture_hangs", "--disable-custom-all-reduce", None),
        ({"plain": GOOD, "symmetric_memory": hung("replay")}, "replay_hangs", "VLLM_ALLREDUCE_USE_SYMM_MEM=0", None),
        ({"plain": GOOD, "flashinfer_attention": WRONG}, "wrong_results", "--attention-backend FLASH_ATTN", None),
        ({"plain": GOOD, "compiled": hung("capture")}, "capture_hangs", "vllm_server_ladder: [none]", None),
        (
            {"plain": GOOD, "custom_all_reduce": WRONG, "symmetric_memory": WRONG},
            "wrong_results",
            "custom_all_reduce: ",
            "turns off",
        ),
        ({"plain": WRONG, "custom_all_reduce": hung("capture")}, "wrong_results", "differs from eager", "turns off"),
        ({"plain": WRONG, "custom_all_reduce": GOOD}, "wrong_results", "differs from eager", "turns off"),
        ({"plain": pair([ONE]), "custom_all_reduce": WRONG}, "wrong_results", "custom_all_reduce: ", "turns off"),
    ],
    ids=[
        "wrong",
        "hangs",
        "symmetric memory",
        "attention",
        "compiled",
        "two wrong",
        "plain wrong, and another",
        "plain wrong",
        "nothing good",
    ],
)
def test_what_fails_alone_is_named_with_its_switch(results, code, said, unsaid):
    result = graph_gate.together({name: kind(reports) for name, reports in results.items()}, CAPTURED)
    assert (result.passed, result.code, result.host) == (False, code, "a2")
    assert said in result.cause
    assert unsaid is None or unsaid not in result.cause


def test_there_is_a_switch_for_all_but_plain_kernels():
    assert set(CAPTURED) - set(graph_gate.SWITCHES) == {"plain"}
    assert set(vllm_kernels.KERNELS) == set(CAPTURED) - {"plain", "compiled"}
