"""The one-page verdict: what explains what, and that it stays a page."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.lockstep.vllm.plugins.filter import diagnosis as filters
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import known_issues
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import ladder
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.ladder import Trial
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.record import EngineState
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.states import EndCode, Phase, Verdict
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import diagnosis
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.codes import Code
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult

VERSIONS = {
    "driver": "550.90.07",
    "nccl": "2.21.5",
    "torch": "2.6.0",
    "vllm": "0.8.4",
    "ray": "2.43.0",
    "kernel": "6.8",
}
ISSUE = known_issues.Match(
    "graph-hang-550.90.07",
    "suspect",
    "vLLM across several hosts was seen to hang while capturing CUDA graphs",
    "550.127.05 was reported to work.",
    "https://github.com/vllm-project/vllm/issues/17167",
    "low",
)


def good(gate):
    return GateResult(gate, "pass", 1.0)


def bad(gate, code, verdict="fail", **more):
    about = {"cause": f"{gate} is bad", "next": "do something", **more}
    return GateResult(gate, verdict, 1.0, code=Code(code), **about)


def host(**gates):
    found = {gate: good(gate) for gate in diagnosis.OWN_GATES}
    return diagnosis.HostFindings(VERSIONS, {**found, **gates}, [ISSUE])


ALL_GOOD = {gate: good(gate) for gate in diagnosis.REPLICA_GATES}
HANG = bad(
    "graph",
    "replay_hangs",
    "timeout",
    pair=("a1", "a2"),
    evidence=("/var/lib/lockstep/evidence/diagnose/graph-replica/x",),
)
CASES = [
    (
        "eager good, graphs hang across hosts",
        {"a1": host(), "a2": host()},
        {**ALL_GOOD, "graph": HANG},
        "eager is good and graphs fail across hosts (replay_hangs), though every host's own graphs are good",
        "a1 and a2",
    ),
    (
        "graphs hang on one host alone",
        {"a1": host(), "a2": host(graph=bad("graph", "capture_hangs", "timeout", host="a2"))},
        ALL_GOOD,
        "graph gate, capture_hangs: eager is good, and graphs fail on a2 alone",
        "a2",
    ),
    (
        "a bad driver explains all that follows",
        {"a1": host(), "a2": host(driver=bad("driver", "module_differs", host="a2"), nccl=bad("nccl", "init_failed"))},
        {**ALL_GOOD, "graph": HANG},
        "driver gate, module_differs",
        "a2",
    ),
    (
        "a pair of the network",
        {"a1": host(network=bad("network", "port_blocked", host="a2", pair=("a1", "a2"))), "a2": host()},
        ALL_GOOD,
        "network gate, port_blocked",
        "a1 and a2",
    ),
    (
        "a wrong sum",
        {"a1": host(), "a2": host()},
        {**ALL_GOOD, "nccl": bad("nccl", "wrong_sum", host="a2")},
        "nccl gate, wrong_sum",
        "a2",
    ),
    (
        "already eager is bad across hosts",
        {"a1": host(), "a2": host()},
        {**ALL_GOOD, "graph": bad("graph", "eager_bad", host="a2")},
        "graph gate, eager_bad: graph is bad",
        "a2",
    ),
    ("all good", {"a1": host(), "a2": host()}, ALL_GOOD, "every gate passes", "–"),
    ("not tested", {"a1": host(), "a2": host()}, {}, "the gates that need the GPUs did not run", "–"),
    ("silent host", {"a1": host(), "a2": diagnosis.HostFindings({}, {})}, ALL_GOOD, "a2 did not answer", "a2"),
]


def engine(platform="", **trials):
    """What the supervisor reports for these trials."""
    known = ladder.Ladder("k", trials, platform=platform)
    return EngineState(Phase.SERVING, "why", ladder=ladder.shown(known))


PROVEN = Trial(Verdict.PROVEN)
HUNG = engine(
    none=PROVEN,
    piecewise=Trial(
        Verdict.FAILED, EndCode.START_HANGS, "vLLM did not start within 60 s; last log line: Capturing CUDA graphs"
    ),
)
CPU = engine("cpu", none=PROVEN, piecewise=PROVEN)
DEAD = engine(none=Trial(Verdict.FAILED, EndCode.START_DIES, "vLLM ended with status 1"))
LADDERS = [
    (ALL_GOOD, HUNG, "vLLM is good on rung none and fails above it: rung piecewise: vLLM did not start within 60 s"),
    ({}, HUNG, "vLLM is good on rung none and fails above it"),
    ({**ALL_GOOD, "graph": HANG}, HUNG, "eager is good and graphs fail across hosts"),
    ({}, DEAD, "vLLM is good on no rung and fails above it: rung none"),
    (ALL_GOOD, CPU, "every gate passes"),
    (ALL_GOOD, engine(), "every gate passes"),
]


@pytest.mark.parametrize(("replica", "engine", "headline"), LADDERS)
def test_a_rung_that_failed_is_the_verdict_where_no_gate_explains_it(replica, engine, headline):
    found = diagnosis.conclude({"a1": host(), "a2": host()}, replica, engine)
    assert found.headline.startswith(headline)
    if "rung" in headline:
        assert found.where == "a1 and a2"
        assert "graph-hang-550.90.07: 550.127.05 was reported to work." in found.advice


@pytest.mark.parametrize(
    ("hosts", "replica", "headline", "where"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_conclude(hosts, replica, headline, where):
    found = diagnosis.conclude(hosts, replica)
    assert headline in found.headline
    assert found.where == where
    assert found.advice


def test_the_page_names_versions_known_issue_remediation_and_evidence():
    record = dataclasses.replace(engine(none=PROVEN), since="2026-11-22T01:00:00Z")
    text = diagnosis.page("replica_a", {"a1": host(), "a2": host()}, {**ALL_GOOD, "graph": HANG}, record, "a1")
    for fragment in (
        "VERDICT on replica_a: eager is good",
        "a1 and a2",
        "driver         550.90.07",
        "graph TIMEOUT replay_hangs",
        "issues/17167",
        "graph-hang-550.90.07: 550.127.05 was reported to work.",
        "ladder: none: proven",
        "/var/lib/lockstep/evidence/diagnose/graph-replica (1 file)",
    ):
        assert fragment in text, fragment
    assert len(text.splitlines()) < 60


PAGE = """\
VERDICT on replica_a: network gate, port_blocked: network is bad
where: a2

GATES
  a1           driver pass   network pass   nccl pass   graph pass
  a2           driver pass   network FAIL port_blocked   nccl pass   graph pass
               quarantined: network gate, run r1
  all together nccl not run   graph TIMEOUT replay_hangs

VERSIONS
  driver         550.90.07
  fabric manager none
  nccl           DIFFERS: a1 2.21.5, a2 2.27.5
  torch          2.6.0
  vllm           0.8.4
  ray            2.43.0
  python         none
  kernel         6.8

ENGINE
  serving on a1 since 2026-11-22T01:00:00Z: why
  ladder: none: proven; piecewise: vLLM did not start within 60 s; last
    log line: Capturing CUDA graphs
  last failure: vLLM ended with status 1

KNOWN ISSUES THAT FIT
  graph-hang-550.90.07 (suspect, low confidence; on a1, a2): vLLM across
    several hosts was seen to hang while capturing CUDA graphs.
    https://github.com/vllm-project/vllm/issues/17167

WHAT TO DO
- do something
- graph-hang-550.90.07: 550.127.05 was reported to work.

EVIDENCE
  a2: /e/x (2 files)
  head: /var/lib/lockstep/evidence/diagnose/graph-replica (1 file)
"""


def test_the_whole_page():
    record = dataclasses.replace(HUNG, since="2026-11-22T01:00:00Z", last_failure="vLLM ended with status 1")
    blocked = bad("network", "port_blocked", host="a2", evidence=("/e/x/1", "/e/x/2"))
    a2 = dataclasses.replace(
        host(network=blocked), quarantined="network gate, run r1", fingerprint={**VERSIONS, "nccl": "2.27.5"}
    )
    text = diagnosis.page("replica_a", {"a1": host(), "a2": a2}, {"graph": HANG}, record, "a1")
    assert f"{text}\n" == PAGE


@pytest.mark.parametrize(("hosts", "replica"), [case[1:3] for case in CASES], ids=[case[0] for case in CASES])
def test_it_fits_a_page(hosts, replica):
    lines = diagnosis.page("replica_a", hosts, replica, None, "a1").splitlines()
    assert len(lines) < 60
    assert all(len(line) <= 120 for line in lines)


def test_versions_that_differ_stand_out():
    other = diagnosis.HostFindings({**VERSIONS, "nccl": "2.27.5"}, host().gates)
    assert "nccl           DIFFERS: a1 2.21.5, a2 2.27.5" in diagnosis.page(
        "r", {"a1": host(), "a2": other}, {}, None, "a1"
    )


def seen(active="inactive", **registered):
    """hostvars of one host after diagnose.yml's probe."""
    identity = {
        "host": "a1",
        "replica": "replica_a",
        "peers": {"a1": "10.0.0.1", "a2": "10.0.0.2"},
        "head": {"host": "a1"},
    }
    state = {"fingerprint": VERSIONS, "host": identity, "units": {"lockstep-vllm.service": {"active": active}}}
    return {"lockstep_seen_state": {"state": state}, **registered}


def test_the_filter_reads_what_was_registered():
    hostvars = {
        "a1": seen(lockstep_seen_ranks_replica={"results": [{"gate": as_json(bad("nccl", "wrong_sum", host="a2"))}]}),
        "a2": seen(lockstep_seen_driver={"gate": as_json(good("driver")), "issues": [dataclasses.asdict(ISSUE)]}),
    }
    text = filters.lockstep_diagnosis(hostvars, "a1")
    assert text.startswith("VERDICT on replica_a: nccl gate, wrong_sum")
    assert "graph-hang-550.90.07" in text


@pytest.mark.parametrize(
    ("answer", "headline"),
    [
        ({"results": [{"gate": as_json(good("nccl"))}, {"gate": as_json(bad("graph", "capture_hangs"))}]}, "graph gate, capture_hangs"),
        ({"results": [{"gate": as_json(bad("nccl", "rank_killed"))}]}, "nccl gate, rank_killed"),
        ({"failed": True, "msg": "no Python"}, "nccl gate, could_not_run: no Python"),
        ({"failed": True, "msg": "no Python", "results": "nonsense"}, "nccl gate, could_not_run: no Python"),
        ({"results": [{"gate": as_json(good("nccl"))}, {"gate": {"gate": "graph"}}]}, "graph gate, could_not_run: its result cannot be used"),
    ],
    ids=["graph", "nccl ended the ranks", "the module failed", "no results", "no result"],
)  # fmt: skip
def test_the_gates_of_one_rank_group(answer, headline):
    hostvars = {"a1": seen(lockstep_seen_ranks=answer), "a2": seen()}
    assert headline in " ".join(filters.lockstep_diagnosis(hostvars, "a1").split())


def test_a_host_that_never_answered_is_named():
    assert "a2 did not answer" in filters.lockstep_diagnosis({"a1": seen(), "a2": {}}, "a1")


def test_a_module_that_failed_counts_as_a_failed_gate():
    hostvars = {"a1": seen(lockstep_seen_driver={"failed": True, "msg": "no facts"}), "a2": seen()}
    assert "driver gate, could_not_run: no facts" in filters.lockstep_diagnosis(hostvars, "a1")


@pytest.mark.parametrize(
    ("active", "runs"), [("active", True), ("activating", True), ("inactive", False), ("failed", False)]
)
def test_an_engine_that_runs_is_not_stopped(active, runs):
    assert filters.lockstep_engine_runs({"a1": seen(active), "a2": seen()}, "a2") is runs


def test_a_head_that_did_not_answer_may_run_its_engine():
    assert filters.lockstep_engine_runs({"a1": {}, "a2": seen()}, "a2") is True
