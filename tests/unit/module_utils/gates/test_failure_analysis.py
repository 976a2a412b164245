"""Who was killed, who hung, who failed first: a table of rank groups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import failure_analysis, nccl
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.codes import Code
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import events, main
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.launcher import Report
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult
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
        "only broken connections, and no deadline: the first of them",
        [
            report("a1", 0, error("a1", 0, 4, "check", "Broken pipe", "peer_lost", at=2.0), status="failed"),
            report("a2", 1, error("a2", 1, 3, "check", "Broken pipe", "peer_lost", at=3.0), status="failed"),
        ],
        ("fail", "error", ("a2",), "check"),
    ),
    (
        "the error of the earlier step, whenever it was reported",
        [
            report("a1", 0, error("a1", 0, 4, "replay", "CUDA error", at=1.0), status="failed"),
            report("a2", 1, error("a2", 1, 3, "capture", "CUDA error", at=2.0), status="failed"),
        ],
        ("fail", "error", ("a2",), "capture"),
    ),
    (
        "two of three fail alike: both of them, by name",
        [
            report("a3", 0, error("a3", 0, 3, "capture", "CUDA error", at=2.0), status="failed"),
            report("a2", 1, status="ended"),
            report("a1", 2, error("a1", 2, 3, "capture", "CUDA error", at=1.0), status="failed"),
        ],
        ("fail", "error", ("a1", "a3"), "capture"),
    ),
    (
        "the rank that was killed first",
        [
            report("a1", 0, step("a1", 0, 2, "check"), ended("a1", 0, -9, at=2.0), status="failed"),
            report("a2", 1, step("a2", 1, 3, "busbw"), ended("a2", 1, -11, at=1.0), status="failed"),
        ],
        ("fail", "killed", ("a2",), "busbw"),
    ),
    (
        "killed before its first step",
        [report("a1", 0, ended("a1", 0, -9), status="failed")],
        ("fail", "killed", ("a1",), None),
    ),
    (
        "one host done, one failed without an event, though it had just begun a step",
        [report("a1", 0), report("a2", 1, step("a2", 1, 3, "check", at=1059.0), status="failed")],
        ("fail", "error", ("a2",), "init"),
    ),
    (
        "ended by us, so not to blame, beside one that did not start",
        [report("a1", 0, status="ended"), report("a2", 1, status="failed")],
        ("fail", "error", ("a2",), "init"),
    ),
    ("all ended by us", [report("a1", 0, status="ended")], ("fail", "error", ("a1",), "init")),
    (
        "an error of its own a moment before its own deadline is a cause",
        [report("a1", 0, error("a1", 0, 5, "replay", "CUDA error", at=1059.9), status="timeout")],
        ("fail", "error", ("a1",), "replay"),
    ),
    (
        "an error of its own after its peer's deadline is a cause where its own had not ended it",
        [
            report("a1", 0, error("a1", 0, 5, "replay", "CUDA error", at=1060.5), status="failed"),
            report("a2", 1, step("a2", 1, 5, "replay"), status="timeout"),
        ],
        ("fail", "error", ("a1",), "replay"),
    ),
    (
        "hung for just as long as it takes",
        [report("a1", 0, step("a1", 0, 5, "replay", at=1055.0), status="timeout")],
        ("timeout", "hung", ("a1",), "replay"),
    ),
    (
        "a moment less",
        [report("a1", 0, step("a1", 0, 5, "replay", at=1055.1), status="timeout")],
        ("timeout", "out_of_time", (), "replay"),
    ),
    (
        "torch that loads for too long hangs",
        [report("a1", 0, step("a1", 0, 0, "load", "torch", at=1000.0), status="timeout")],
        ("timeout", "hung", ("a1",), "load"),
    ),
    (
        "a moment less of loading, by the host that is ahead",
        [
            report("a1", 0, step("a1", 0, 0, "load", "torch", at=1000.1), status="timeout"),
            report("a2", 1, status="timeout"),
        ],
        ("timeout", "out_of_time", (), "load"),
    ),
    (
        "the longest step of any host counts",
        [
            report(
                "a1", 0, step("a1", 0, 1, "eager", at=1000.0), step("a1", 0, 2, "capture", at=1030.0), status="timeout"
            ),
            report("a2", 1, step("a2", 1, 2, "capture", at=1030.0), status="timeout"),
        ],
        ("timeout", "out_of_time", (), "capture"),
    ),
    (
        "ranks of two hosts behind a third",
        [
            report("a1", 0, step("a1", 0, 5, "check"), status="timeout"),
            report("a2", 1, step("a2", 1, 4, "check"), status="timeout"),
            report("a3", 2, step("a3", 2, 4, "check"), status="timeout"),
        ],
        ("timeout", "hung", ("a2", "a3"), "check"),
    ),
    (
        "it has run for just twice the longest step",
        [
            report(
                "a1", 0, step("a1", 0, 1, "eager", at=1030.0), step("a1", 0, 2, "capture", at=1040.0), status="timeout"
            )
        ],
        ("timeout", "hung", ("a1",), "capture"),
    ),
    (
        "torch that loaded slowly makes no later step slow",
        [
            report(
                "a1",
                0,
                step("a1", 0, 0, "load", "torch", at=1000.0),
                step("a1", 0, 1, "init", at=1040.0),
                step("a1", 0, 2, "eager", at=1041.0),
                status="timeout",
            )
        ],
        ("timeout", "hung", ("a1",), "eager"),
    ),
    (
        "steps of two ranks of a host are no step of one",
        [
            report(
                "a1",
                0,
                step("a1", 0, 1, "eager", at=1000.0),
                step("a1", 1, 1, "eager", at=1040.0),
                here=2,
                status="timeout",
            )
        ],
        ("timeout", "hung", ("a1",), "eager"),
    ),
    (
        "without a deadline's time nothing shows progress",
        [report("a1", 0, step("a1", 0, 5, "replay"), status="timeout", limit_at=0.0)],
        ("timeout", "hung", ("a1",), "replay"),
    ),
    (
        "no step at all is as far as loading",
        [
            report("a1", 0, step("a1", 0, 0, "load", "torch", at=1000.0), status="timeout"),
            report("a2", 1, status="timeout"),
        ],
        ("timeout", "hung", (), "load"),
    ),
    (
        "what a rank says at its very deadline is the deadline's doing",
        [report("a1", 0, step("a1", 0, 5, "replay"), error("a1", 0, 5, "replay", "x", at=1060.0), status="timeout")],
        ("timeout", "hung", ("a1",), "replay"),
    ),
    (
        "a rank was killed before its peer's deadline",
        [
            report("a1", 0, step("a1", 0, 5, "replay"), ended("a1", 0, -1), status="failed"),
            report("a2", 1, step("a2", 1, 5, "replay"), status="timeout"),
        ],
        ("fail", "killed", ("a1",), "replay"),
    ),
    (
        "a rank that ended well was not killed",
        [TWO_DONE[0], report("a2", 1, error("a2", 1, 3, "check", "CUDA error"), status="failed")],
        ("fail", "error", ("a2",), "check"),
    ),
    (
        "neither began: the first one's output",
        [
            report("a1", 0, status="failed", tail="RuntimeError: one"),
            report("a2", 1, status="failed", tail="RuntimeError: two"),
        ],
        ("fail", "error", ("a1", "a2"), "init"),
    ),
    (
        "neither began, and the second one said nothing",
        [report("a1", 0, status="failed", tail="RuntimeError: one"), report("a2", 1, status="failed")],
        ("fail", "error", ("a1", "a2"), "init"),
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


def test_a_lost_host_says_what_ray_said():
    reports = [
        report("a1", 0, status="lost", tail="PermissionError: [Errno 13] Permission denied: 'nccl.1.log'"),
        report("a2", 1, status="lost", tail="PermissionError: [Errno 13] Permission denied: 'nccl.1.log'"),
    ]
    said = "a1, a2: no answer through Ray (PermissionError: [Errno 13] Permission denied: 'nccl.1.log')"
    assert failure_analysis.analyse(reports).cause == said


@pytest.mark.parametrize(
    ("title", "cause"),
    [
        ("all hang at the same place", "all ranks hung in replay"),
        ("ranks of two hosts behind", "ranks 1, 2 on a2, a3 hung in check; the others waited"),
        (
            "a moment less",
            "still progressing at the deadline: the last step began 4.9 s before it, the longest step took 0.0 s in replay; "
            "inconclusive, no host blamed",
        ),
        ("the rank that was killed first", "rank 1 on a2 was killed by signal 11 in busbw"),
        (
            "killed before its first step",
            "rank 0 on a1 was killed by signal 9 (SIGKILL: look for the kernel's out-of-memory killer in kernel.log)",
        ),
        ("the error of the earlier step", "rank 1 on a2 failed with RuntimeError: CUDA error in capture"),
        ("two of three fail alike", "rank 2 on a1 failed with RuntimeError: CUDA error in capture"),
        ("neither began, and", "the ranks on a1, a2 did not start: RuntimeError: one"),
        ("neither began", "the ranks on a1, a2 did not start: RuntimeError: one"),
        ("ended by us", "the ranks on a2 did not start: no output"),
        ("a host was lost", "a2: no answer through Ray"),
    ],
)
def test_the_cause(title, cause):
    reports = next(case[1] for case in CASES if case[0].startswith(title))
    assert failure_analysis.analyse(reports).cause == cause


def test_a_host_that_never_began_hung_before_its_first_step():
    assert failure_analysis.analyse([report("a1", 0, status="timeout")]).cause == "all ranks hung before the first step"


BASE = GateResult("nccl", "pass", 1.0)
TWO = [report("a1", 0, status="timeout"), report("a2", 1)]


@pytest.mark.parametrize(
    ("kind", "hosts", "verdict", "expected"),
    [
        ("hung", ("a2", "a1"), "timeout", ("a2", None, "ansible-playbook playbooks/diagnose.yml --limit a2")),
        ("error", (), "fail", (None, ("a1", "a2"), "ansible-playbook playbooks/diagnose.yml")),
        ("out_of_time", (), "timeout", (None, ("a1", "a2"), "Repeat with a longer deadline")),
    ],
)
def test_stopped(kind, hosts, verdict, expected):
    failure = failure_analysis.Failure(verdict, kind, hosts, None, "its cause")
    result = failure_analysis.stopped(BASE, TWO, failure, Code.RANK_KILLED)
    assert (result.verdict, result.code, result.cause) == (verdict, Code.RANK_KILLED, "its cause")
    assert (result.host, result.pair, result.next) == expected
    assert failure_analysis.stopped(BASE, TWO, failure, Code.OK, "another").cause == "another"


def test_there_is_a_pair_of_two_hosts_alone():
    assert failure_analysis.pair_of(TWO) == ("a1", "a2")
    assert failure_analysis.pair_of(TWO[:1]) is failure_analysis.pair_of([*TWO, report("a3", 2)]) is None


@pytest.mark.parametrize(("hosts", "host"), [(set(), None), ({"a1"}, "a1"), ({"a1", "a2"}, None)])
def test_one_host_alone_is_to_blame(hosts, host):
    assert failure_analysis.only(hosts) == host


def test_the_backend_is_the_one_that_the_ranks_chose():
    assert failure_analysis.backend([report("a1", 0), report("a2", 1, started("a2", 1, "nccl"))]) == "nccl"
    assert failure_analysis.backend([report("a1", 0)]) is None


def test_the_slowest_host_gives_the_time():
    assert failure_analysis.seconds([Report("a1", 0, 1, "done", 2.0), Report("a2", 1, 1, "done", 5.0)]) == 5.0
    assert failure_analysis.seconds([]) == 0.0


CASE = Path(__file__).parents[2] / "fixtures/cases/gate-nccl-system-error"


def case_reports(name: str) -> list[Report]:
    """What the case's ranks reported; its errors are weighed as a rank weighs its own."""
    reports = []
    for given in json.loads((CASE / name).read_text()):
        happened: list[events.Event] = []
        for one in given.pop("events"):
            rank, where = one["rank"], one["host"]
            if one["event"] == "start":
                happened.append(events.Started(rank, where, one["backend"], one["device"], one["nccl"]))
            elif one["event"] == "step":
                step_of = (one["step"], one["phase"], one["what"], one["waiting"], one["at"])
                happened.append(events.Step(rank, where, *step_of))
            elif one["event"] == "error":
                code = main.error_code(RuntimeError(one["message"]))
                error_of = (one["step"], one["phase"], one["what"], code, one["kind"], one["message"], one["at"])
                happened.append(events.Error(rank, where, *error_of))
            else:
                happened.append(events.Ended(rank, where, one["status"], one["at"]))
        reports.append(Report(**given, events=tuple(happened)))
    return reports


@pytest.mark.parametrize("name", ["both-ended.json", "other-at-deadline.json"])
def test_ncclsystemerror_is_no_echo_of_a_peer(name: str) -> None:
    """NCCL's fixed text for it has the word "socket"; the reason stands under "Last error:"."""
    result = nccl.evaluate(case_reports(name), None)
    assert (result.verdict, result.code, result.host) == ("fail", Code.INIT_FAILED, "a2")
    assert (
        "failed with DistBackendError: Error while attaching to shared memory segment /dev/shm/nccl-b7Qx"
        in result.cause
    )
    assert "error: No such file or directory (2)" in result.cause
