"""A gate across hosts: whether it can be placed, how its time is shared, and how trials lead to a host or pair."""

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import ray_launcher
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.request import Asked, Request
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.gcs import Node, Table
from tests.machine import PATIENCE
from tests.unit.module_utils.gates.rank_reports import check, ended, report, started, step

HOSTS = {"a1": "10.0.0.1", "a2": "10.0.0.2"}


def request(deadline=100.0, floor_gbps=None, gates=("nccl",), **more):
    asked = tuple(Asked(gate, deadline, {}, floor_gbps=floor_gbps) for gate in gates)
    return Request(**{"scope": "replica", "gates": asked, **more})


def node(address, gpus=1.0, free=None, **more):
    held = gpus if free is None else free
    return Node(f"id-{address}", address, resources={"GPU": gpus}, free={"GPU": held}, **more)


BOTH = (node("10.0.0.1"), node("10.0.0.2"))
READY = [
    ("all there", Table("up", BOTH), {"a1": 1, "a2": 1}),
    ("eight GPUs", Table("up", (node("10.0.0.1", 8.0), node("10.0.0.2", 8.0))), {"a1": 8, "a2": 8}),
    ("head away", Table("down", error="connection refused"), ("ray_down", None)),
    ("token refused", Table("refused", error="bad token"), ("ray_refused", None)),
    ("host not joined", Table("up", BOTH[:1]), ("host_missing", "a2")),
    ("host dead", Table("up", (BOTH[0], node("10.0.0.2", alive=False))), ("host_missing", "a2")),
    ("host draining", Table("up", (BOTH[0], node("10.0.0.2", draining=True))), ("host_missing", "a2")),
    ("host without GPUs", Table("up", (BOTH[0], node("10.0.0.2", 0.0))), ("no_gpus", "a2")),
    ("GPU in use", Table("up", (BOTH[0], node("10.0.0.2", 8.0, 7.0))), ("gpus_busy", "a2")),
]


@pytest.mark.parametrize(("table", "expected"), [case[1:] for case in READY], ids=[case[0] for case in READY])
def test_placement(table, expected):
    found = ray_launcher.placement(request(), HOSTS, table)
    if isinstance(found, GateResult):
        assert (found.code, found.host) == expected
        assert found.cause
        assert found.next
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("tables", "patience", "code"),
    [
        ([Table("down", error="no answer within 2 s"), Table("up", BOTH)], PATIENCE, None),
        ([Table("up", (BOTH[0], node("10.0.0.2", 1.0, 0.0))), Table("up", BOTH)], PATIENCE, None),
        ([Table("down", error="connection refused")] * 50, 1.0, "ray_down"),
    ],
    ids=["an answer lost", "the last rank group's GPU", "head away"],
)
def test_a_rank_group_that_cannot_be_placed_is_tried_again(tables, patience, code):
    asked = iter(tables)
    table, found = ray_launcher.wait_for_placement(request(), HOSTS, lambda: next(asked), patience=patience)
    if code is None:
        assert (table, found) == (Table("up", BOTH), {"a1": 1, "a2": 1})
    else:
        assert found.code == code


class Trials(ray_launcher.RankGroup):
    """A rank group whose trials are computed instead of run."""

    def behave(self, outcome):
        self.outcome = outcome
        self.log = []
        return self

    def trial(self, hosts, parts):
        self.log.append((tuple(hosts), sum(part.seconds for part in parts)))
        self.parts = parts
        return self.outcome(tuple(hosts))


def rank_group(hosts, outcome, **more):
    asked = request(floor_gbps=0.0, **more)
    names = {host: f"10.0.0.{number}" for number, host in enumerate(hosts)}
    return Trials(asked, names, dict.fromkeys(hosts, 1), "eth0", {}).behave(outcome)


def run_gate(group):
    """The one verdict of a rank group of one gate."""
    ((result, _),) = ray_launcher.run_gates(group)
    return result


def ranks(hosts, status="done", wrong=(), phase=None, at=1000.0):
    reports = []
    for rank, host in enumerate(hosts):
        happened = [
            started(host, rank),
            check(host, rank, wrong=int(host in wrong), index=0, observed=2.0, expected=1.0),
        ]
        if phase:
            happened.append(step(host, rank, 3, phase, at=at))
        reports.append(report(host, rank, *happened, status=status))
    return reports


def test_a_pass_needs_one_trial_with_all_the_time():
    found = rank_group(["a1", "a2"], ranks)
    assert run_gate(found).passed
    assert [hosts for hosts, _ in found.log] == [("a1", "a2")]


def test_no_rounds_when_the_failure_names_its_host():
    found = rank_group(["a1", "a2"], lambda hosts: ranks(hosts, wrong=["a2"]))
    result = run_gate(found)
    assert (result.code, result.host, len(found.log)) == ("wrong_sum", "a2", 1)


def test_a_hang_of_two_hosts_that_are_good_alone_is_the_pair():
    found = rank_group(
        ["a1", "a2"], lambda hosts: ranks(hosts, "timeout", phase="check") if len(hosts) > 1 else ranks(hosts)
    )
    result = run_gate(found)
    assert (result.verdict, result.code, result.host, result.pair) == (
        "timeout",
        "collective_hangs",
        None,
        ("a1", "a2"),
    )
    assert [hosts for hosts, _ in found.log] == [("a1", "a2"), ("a1",), ("a2",)]


def test_a_hang_is_traced_to_one_host_of_sixteen():
    hosts = [f"a{number:02}" for number in range(16)]
    found = rank_group(hosts, lambda group: ranks(group, "timeout", phase="check") if "a05" in group else ranks(group))
    result = run_gate(found)
    assert (result.host, result.pair) == ("a05", None)
    assert result.measured["bisect"]["rounds"] == 3


class Clocked(Trials):
    """Trials that each use up their time, and half of what their guards may need after it; those of a round together."""

    def remaining(self):
        spent = {seconds for _, seconds in self.log}
        return self.request.seconds() - sum(seconds + ray_launcher.deadline.EXTRA / 2 for seconds in spent)


@pytest.mark.parametrize("count", [2, 4, 16])
def test_all_rounds_together_fit_into_the_deadline(count):
    plain = rank_group([f"a{number:02}" for number in range(count)], None)
    fields = {name: getattr(plain, name) for name in ("request", "addresses", "ranks", "interface", "actors")}
    found = Clocked(**fields).behave(lambda group: ranks(group, "timeout", phase="check"))
    run_gate(found)
    assert len(found.log) > 1
    assert found.remaining() > -ray_launcher.deadline.EXTRA


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (lambda hosts: ranks(hosts, "timeout", phase="check", at=1059.0), "out_of_time"),
        (lambda hosts: [*ranks(hosts[:1]), report("a2", 1, status="lost")], "host_lost"),
    ],
)
def test_what_is_inconclusive_starts_no_bisection(outcome, code):
    found = rank_group(["a1", "a2"], outcome)
    assert run_gate(found).code == code
    assert len(found.log) == 1


def test_trials_that_ran_out_of_time_accuse_nobody():
    def outcome(hosts):
        return ranks(hosts, "timeout", phase="check", at=1000.0 if len(hosts) > 1 else 1059.0)

    result = run_gate(rank_group(["a1", "a2"], outcome))
    assert result.host is None
    assert result.measured["bisect"]["unclear"] == ("a1", "a2")


def test_no_bisection_when_it_is_off():
    found = rank_group(["a1", "a2"], lambda hosts: ranks(hosts, "timeout", phase="check"), bisect=False)
    assert run_gate(found).pair == ("a1", "a2")
    assert len(found.log) == 1


def test_a_killed_rank_needs_no_bisection():
    def outcome(hosts):
        return [*ranks(hosts[:1]), report("a2", 1, started("a2", 1), ended("a2", 1, -9), status="failed")]

    found = rank_group(["a1", "a2"], outcome)
    result = run_gate(found)
    assert (result.code, result.host, len(found.log)) == ("rank_killed", "a2", 1)


def both(hosts, status="done", wrong=(), graph_at=1000.0, nccl_only=False):
    """Ranks of both gates: what ``ranks`` says of the NCCL gate, then a step of the graph gate."""
    found = []
    for rank, host in enumerate(hosts):
        seen = [
            started(host, rank),
            step(host, rank, 1, "check", at=950.0, part="nccl"),
            check(host, rank, wrong=int(host in wrong)),
        ]
        if not nccl_only:
            seen.append(step(host, rank, 2, "capture", at=graph_at, part="graph"))
        found.append(report(host, rank, *seen, status=status))
    return found


def test_a_fault_of_the_second_gate_is_bisected_with_that_gate_alone():
    hosts = ["a1", "a2"]
    found = rank_group(
        hosts, lambda group: both(group, "timeout" if len(group) > 1 else "done"), gates=("nccl", "graph")
    )
    (nccl, _), (graph, _) = ray_launcher.run_gates(found)
    assert nccl.passed
    assert (graph.code, graph.pair) == ("capture_hangs", ("a1", "a2"))
    assert [hosts for hosts, _ in found.log] == [("a1", "a2"), ("a1",), ("a2",)]
    assert [part.name for part in found.parts] == ["graph"]


def test_a_fault_of_the_first_gate_leaves_the_second_without_a_verdict():
    found = rank_group(
        ["a1", "a2"], lambda group: both(group, "timeout", nccl_only=True), gates=("nccl", "graph"), bisect=False
    )
    assert [result.gate for result, _ in ray_launcher.run_gates(found)] == ["nccl"]


def test_placing_takes_from_the_first_gate_s_time_alone():
    whole = request(deadline=2000.0, gates=("nccl", "graph"))
    asked = ray_launcher.less_of_the_first(whole, time.monotonic() + 1000)
    assert 1000 - PATIENCE < asked.gates[0].deadline <= 1000
    assert asked.gates[1].deadline == 2000


def test_what_else_lies_among_the_evidence_is_skipped(tmp_path):
    folder = tmp_path / "evidence"
    folder.mkdir()
    (tmp_path / "secret").write_text("of root alone")
    (folder / "rank0.stack").write_text("in all_reduce")
    (folder / "nccl.host.1.log").symlink_to(tmp_path / "secret")
    (folder / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe")
    assert ray_launcher._contents(folder) == {"rank0.stack": "in all_reduce"}
