"""Who was killed, who hung, who failed first: a table of rank groups."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import failure_analysis
from tests.unit.module_utils.gates.rank_reports import ended, error, report, started, step

TWO_DONE = [
    report("a1", 0, started("a1", 0), ended("a1", 0, 0)),
    report("a2", 1, started("a2", 1), ended("a2", 1, 0)),
]
CASES = [
    ("all well", TWO_DONE, None),
    (
        "a rank was killed; its peer's broken connection is only an echo",
        [
            report(
                "a1", 0, error("a1", 0, 3, "check", "Connection closed by peer", "peer_lost", at=999.0), status="failed"
            ),
            report("a2", 1, step("a2", 1, 3, "check", "all_reduce"), ended("a2", 1, -9), status="failed"),
        ],
        ("fail", "killed", ("a2",), "check"),
    ),
    (
        "one rank hangs in its own part, the other waits",
        [
            report("a1", 0, step("a1", 0, 4, "capture", "FULL batch 4", waiting=True), status="timeout"),
            report("a2", 1, step("a2", 1, 4, "capture", "FULL batch 4"), status="timeout"),
        ],
        ("timeout", "hung", ("a2",), "capture"),
    ),
    (
        "one rank is a step behind",
        [
            report("a1", 0, step("a1", 0, 5, "check"), status="timeout"),
            report("a2", 1, step("a2", 1, 4, "local"), status="timeout"),
        ],
        ("timeout", "hung", ("a2",), "local"),
    ),
    (
        "all hang at the same place: nobody to blame",
        [
            report("a1", 0, step("a1", 0, 5, "replay"), status="timeout"),
            report("a2", 1, step("a2", 1, 5, "replay"), status="timeout"),
        ],
        ("timeout", "hung", (), "replay"),
    ),
    (
        "a single host that hangs is the one",
        [report("a1", 0, step("a1", 0, 5, "replay"), status="timeout")],
        ("timeout", "hung", ("a1",), "replay"),
    ),
    (
        "two ranks of one host, one hangs",
        [
            report(
                "a1",
                0,
                step("a1", 0, 5, "replay", waiting=True),
                step("a1", 1, 5, "replay"),
                here=2,
                status="timeout",
            )
        ],
        ("timeout", "hung", ("a1",), "replay"),
    ),
    (
        "progress at the deadline is inconclusive: nobody to blame",
        [
            report("a1", 0, step("a1", 0, 5, "capture", at=1058.0), status="timeout"),
            report("a2", 1, step("a2", 1, 4, "capture", waiting=True, at=1030.0), status="timeout"),
        ],
        ("timeout", "out_of_time", (), "capture"),
    ),
    (
        "a step that takes no longer than twice an earlier one may still progress",
        [
            report(
                "a1", 0, step("a1", 0, 1, "eager", at=1000.0), step("a1", 0, 2, "capture", at=1032.0), status="timeout"
            )
        ],
        ("timeout", "out_of_time", (), "capture"),
    ),
    (
        "a step that is reported after the deadline, while evidence is saved",
        [report("a1", 0, step("a1", 0, 5, "capture", at=1062.0), status="timeout")],
        ("timeout", "out_of_time", (), "capture"),
    ),
    (
        "torch may take its time to load",
        [report("a1", 0, step("a1", 0, 0, "load", "torch", at=1010.0), status="timeout")],
        ("timeout", "out_of_time", (), "load"),
    ),
    (
        "a host that never reported a step is behind",
        [
            report("a1", 0, step("a1", 0, 1, "init"), status="timeout"),
            report("a2", 1, status="timeout"),
        ],
        ("timeout", "hung", ("a2",), "init"),
    ),
    (
        "one rank fails by itself, the other with a broken connection",
        [
            report(
                "a1", 0, error("a1", 0, 3, "capture", "Connection reset by peer", "peer_lost", at=1.0), status="failed"
            ),
            report("a2", 1, error("a2", 1, 3, "capture", "CUDA error: operation failed", at=2.0), status="failed"),
        ],
        ("fail", "error", ("a2",), "capture"),
    ),
    (
        "both fail alike: nobody alone",
        [
            report("a1", 0, error("a1", 0, 3, "capture", "CUDA error"), status="failed"),
            report("a2", 1, error("a2", 1, 3, "capture", "CUDA error"), status="failed"),
        ],
        ("fail", "error", (), "capture"),
    ),
    (
        "the deadline ended one host's ranks first, and its peer then lost the connection: still a hang",
        [
            report(
                "a1",
                0,
                step("a1", 0, 5, "replay"),
                error("a1", 0, 5, "replay", "Connection closed by peer", "peer_lost", at=1059.9),
                ended("a1", 0, 1, at=1060.0),
                status="failed",
            ),
            report("a2", 1, step("a2", 1, 5, "replay"), status="timeout"),
        ],
        ("timeout", "hung", (), "replay"),
    ),
    (
        "what the deadline's own signals do is no cause either",
        [
            report(
                "a1",
                0,
                step("a1", 0, 5, "replay"),
                error("a1", 0, 5, "replay", "interrupted", at=1060.1),
                ended("a1", 0, -15, at=1060.2),
                status="timeout",
            ),
            report("a2", 1, step("a2", 1, 5, "replay"), status="timeout"),
        ],
        ("timeout", "hung", (), "replay"),
    ),
    (
        "a rank failed by itself before its peer's deadline",
        [
            report("a1", 0, error("a1", 0, 5, "replay", "CUDA error: illegal address", at=1059.0), status="failed"),
            report("a2", 1, step("a2", 1, 5, "replay"), status="timeout"),
        ],
        ("fail", "error", ("a1",), "replay"),
    ),
    (
        "a host was lost from Ray",
        [report("a1", 0, step("a1", 0, 2, "check"), status="ended"), report("a2", 1, status="lost")],
        ("fail", "lost", ("a2",), None),
    ),
    (
        "the ranks did not even start",
        [report("a1", 0, status="failed", tail="Traceback\nModuleNotFoundError: No module named 'torch'")],
        ("fail", "error", ("a1",), "init"),
    ),
]


@pytest.mark.parametrize(("reports", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_analyse(reports, expected):
    found = failure_analysis.analyse(reports)
    assert (found and (found.verdict, found.kind, found.hosts, found.phase)) == expected


def test_the_cause_of_a_hang():
    reports = next(case[1] for case in CASES if case[0].startswith("one rank hangs in"))
    found = failure_analysis.analyse(reports)
    assert found.cause == "rank 1 on a2 hung in capture (FULL batch 4); the others waited"


def test_no_time_is_negative():
    reports = next(case[1] for case in CASES if case[0].startswith("a step that is reported after"))
    assert "the last step began 0.0 s before it" in failure_analysis.analyse(reports).cause


def test_the_last_line_of_the_ranks_is_the_cause():
    found = failure_analysis.analyse(CASES[-1][1])
    assert "ModuleNotFoundError: No module named 'torch'" in found.cause
