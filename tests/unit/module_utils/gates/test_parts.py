"""What became of each part of a rank group's work: a failure belongs to the part that had begun last, and to no other."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import graph as graph_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import nccl as nccl_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import parts
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import events
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.job import Part
from tests.unit.module_utils.gates.rank_reports import check, ended, error, report, started, step

PARTS = [Part("nccl", "collectives", {}, 60.0), Part("graph", "graphs", {}, 60.0)]
BEGAN = 940.0
"""When a report's first part began: 60 s before its limit."""


def ranks(host, first, *happened, status="done", **extra):
    return report(host, first, started(host, first), *happened, status=status, limit_at=BEGAN + 60, **extra)


def init(host, rank):
    return step(host, rank, 1, "init", at=BEGAN + 4)


def nccl(host, rank, **more):
    return [init(host, rank), step(host, rank, 2, "check", at=BEGAN + 5, part="nccl"), check(host, rank, **more)]


def graph(host, rank, phase="capture", waiting=False, at=BEGAN + 8):
    return step(host, rank, 3, phase, waiting=waiting, at=at, part="graph")


def verdicts(reports):
    evaluators = {"nccl": lambda found: nccl_gate.evaluate(found, None), "graph": graph_gate.evaluate}
    found = {name: evaluators[name](each) for name, each in parts.split(reports, PARTS).items()}
    return {name: (str(result.code), result.host) for name, result in found.items()}


def both(*second, status="done", first_status=None):
    """a1 is well; what a2 did after the NCCL part."""
    return [
        ranks("a1", 0, *nccl("a1", 0), graph("a1", 0, waiting=True), status=first_status or status),
        ranks("a2", 1, *nccl("a2", 1), *second, status=status),
    ]


CASES = [
    ("well", both(graph("a2", 1)), {"nccl": ("ok", None), "graph": ("ok", None)}),
    (
        "hangs in the second",
        both(graph("a2", 1), status="timeout"),
        {"nccl": ("ok", None), "graph": ("capture_hangs", "a2")},
    ),
    (
        "killed in the second",
        both(graph("a2", 1), ended("a2", 1, -9), status="failed", first_status="ended"),
        {"nccl": ("ok", None), "graph": ("rank_killed", "a2")},
    ),
    (
        "fails in the second",
        both(graph("a2", 1), error("a2", 1, 3, "capture", "CUDA error"), status="failed", first_status="ended"),
        {"nccl": ("ok", None), "graph": ("capture_errors", "a2")},
    ),
    (
        "killed before its own step of the second was written",
        both(ended("a2", 1, -9), status="failed", first_status="ended"),
        {"nccl": ("ok", None), "graph": ("rank_killed", "a2")},
    ),
    (
        "killed in the first",
        [
            ranks("a1", 0, *nccl("a1", 0), status="ended"),
            ranks("a2", 1, *nccl("a2", 1), ended("a2", 1, -9), status="failed"),
        ],
        {"nccl": ("rank_killed", "a2")},
    ),
    (
        "hangs in the first",
        [ranks("a1", 0, *nccl("a1", 0), status="timeout"), ranks("a2", 1, init("a2", 1), status="timeout")],
        {"nccl": ("init_hangs", "a2")},
    ),
    ("never began", [ranks("a1", 0, status="failed")], {"nccl": ("init_failed", "a1")}),
    (
        "wrong sums, and the second is well",
        [
            ranks("a1", 0, *nccl("a1", 0), graph("a1", 0)),
            ranks("a2", 1, *nccl("a2", 1, wrong=3), graph("a2", 1)),
        ],
        {"nccl": ("wrong_sum", "a2"), "graph": ("ok", None)},
    ),
    (
        "a host lost takes its part of both",
        [ranks("a1", 0, *nccl("a1", 0), graph("a1", 0)), report("a2", 1, status="lost")],
        {"nccl": ("host_lost", "a2"), "graph": ("host_lost", "a2")},
    ),
]


@pytest.mark.parametrize(("reports", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_verdicts(reports, expected):
    assert verdicts(reports) == expected


def test_each_part_has_its_seconds_limit_and_what_was_left():
    whole = ranks("a1", 0, *nccl("a1", 0), graph("a1", 0, at=BEGAN + 8), status="timeout")
    whole = dataclasses.replace(whole, seconds=70.0, evidence=("/e/1",), tail="said", leaked_processes=("7 python D",))
    found = parts.split([whole], PARTS)
    (first,), (second,) = found["nccl"], found["graph"]
    assert (first.seconds, first.limit_at, first.status, first.evidence) == (8.0, BEGAN + 60, "done", ())
    assert (second.seconds, second.limit_at, second.status, second.evidence) == (62.0, BEGAN + 68, "timeout", ("/e/1",))
    assert (first.leaked_processes, second.leaked_processes) == ((), ("7 python D",))
    assert first.of(events.Started) == second.of(events.Started)
    assert [each.part for each in second.of(events.Step)] == ["graph"]


def test_ranks_of_one_part_are_as_they_were_reported():
    whole = ranks("a1", 0, init("a1", 0), step("a1", 0, 2, "capture"), status="timeout")
    (only,) = parts.split([whole], PARTS[1:])["graph"]
    assert dataclasses.replace(only, events=()) == dataclasses.replace(whole, events=())
    assert set(only.events) == set(whole.events)
