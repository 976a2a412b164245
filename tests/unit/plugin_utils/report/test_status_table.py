from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.unexpected import Unexpected, UnexpectedCode
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import cluster_status, status_table

CLOCK = 1795309800.0  # 2026-11-22T01:10:00Z
FINGERPRINT = {"driver": "550.127.05", "driver_packages": "550.127.05", "kernel": "6.1.0", "ray": "2.60.0"}


def unit(active: str = "active", result: str = "success", since: float = CLOCK - 7200) -> dict[str, Any]:
    return {"active": active, "sub": "running", "result": result, "since": str(since)}


def node(host: str, **other: Any) -> dict[str, Any]:
    return {"host": host, "alive": True, "draining": False, "gpus": 1.0, "gpus_free": 0.0, **other}


def state(head: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "clock": CLOCK,
        "driver": {"loaded_version": "550.127.05", "package_version": "550.127.05", "smi_failure": None},
        "fingerprint": FINGERPRINT,
        "fingerprint_digest": "d1",
        "units": {"lockstep-ray.service": unit()},
        "host": {"gpus": 1},
        "stamps": {"host": {"fingerprint": FINGERPRINT, "digest": "d1"}, "replica": None},
        "filter": {"wanted": True, "problem": ""},
        "tunnel": {"wanted": False, "problem": "", "handshakes": {}},
        "quarantine": None,
        "engine": None,
        "lock": None,
        "request": None,
    }
    if head:
        found["units"]["lockstep-vllm.service"] = unit()
        found["stamps"]["replica"] = {"hosts": {"a1": "d1", "a2": "d1"}}
        found["engine"] = {
            "phase": "serving",
            "ready": True,
            "reason": "",
            "since": "2026-11-22T00:40:00Z",
            "layout": "wide",
            "tensor_parallel_size": 2,
            "pipeline_parallel_size": 1,
            "rung": "full",
            "last_completion": "2026-11-22T01:09:58Z",
            "restarts": 0,
        }
        found["ray"] = {"head": "up", "error": None, "nodes": [node("a1"), node("a2")]}
    return found


def probe() -> dict[str, Any]:
    return {
        "replicas": {"replica_a": {"head": "a1", "hosts": ["a1", "a2"], "zone": "z1"}},
        "routers": ["router1"],
        "hosts": {
            "a1": {"reachable": True, "error": None, "state": state(head=True)},
            "a2": {"reachable": True, "error": None, "state": state(head=False)},
            "router1": {"reachable": True, "error": None, "state": {"units": {"haproxy.service": unit()}}},
        },
    }


def test_all_is_well() -> None:
    status = cluster_status.build(probe())
    assert status == {
        "at": "2026-11-22T01:10:00Z",
        "replicas": [
            {
                "replica": "replica_a",
                "zone": "z1",
                "head": "a1",
                "serving": True,
                "engine": "serving",
                "layout": "wide",
                "tensor_parallel_size": 2,
                "pipeline_parallel_size": 1,
                "rung": "full",
                "since": "2026-11-22T00:40:00Z",
                "last_completion": "2026-11-22T01:09:58Z",
                "restarts": 0,
                "stamp": "valid",
                "gpus": {"total": 2, "used": 2, "missing": 0},
                "reason": "",
                "suspect": None,
                "advice": [],
                "hosts": [
                    {
                        "host": host,
                        "role": role,
                        "reachable": True,
                        "driver": "550.127.05",
                        "driver_problem": "",
                        "stamp": "valid",
                        "filter": "on",
                        "tunnel": "off",
                        "tunnel_handshakes": {},
                        "quarantine": None,
                        "ray": "joined",
                        "gpus": {"declared": 1, "total": 1, "used": 1, "missing": 0},
                        "since": "2026-11-21T23:10:00Z",
                        "reason": "",
                    }
                    for host, role in (("a1", "head"), ("a2", "worker"))
                ],
            }
        ],
        "routers": [{"host": "router1", "running": True, "since": "2026-11-21T23:10:00Z", "reason": ""}],
        "unexpected": [],
        "unanswered": [],
        "lock": None,
        "request": None,
    }
    assert status_table.as_text(status).splitlines() == [
        "replica_a: serving · serving for 30 min · layout wide (TP2×PP1) · rung full · GPUs 2 of 2 used",
        "  host  role    driver      stamp  quarantine  ray     gpus         since  reason",
        "  a1    head    550.127.05  valid  –           joined  1 of 1 used  2 h",
        "  a2    worker  550.127.05  valid  –           joined  1 of 1 used  2 h",
        "",
        "routers",
        "  router1: running for 2 h",
    ]


Change = Callable[[dict[str, Any]], None]


def of(host: str, **parts: Any) -> Change:
    """A change to what one host reported."""
    return lambda found: found["hosts"][host]["state"].update(copy.deepcopy(parts))


def gone(host: str, **answer: Any) -> Change:
    return lambda found: found["hosts"].update({host: {"reachable": False, "state": None, **answer}})


def nodes(*known: dict[str, Any]) -> Change:
    return of("a1", ray={"head": "up", "nodes": list(known)})


def engine(**parts: Any) -> Change:
    return lambda found: found["hosts"]["a1"]["state"]["engine"].update(parts)


def tunnel(**handshakes: float | None) -> dict[str, Any]:
    return {"wanted": True, "problem": "", "handshakes": handshakes}


QUARANTINED = {"kind": "failed", "reason": "graph gate timed out", "owner": "ada@ops1", "at": "2026-11-22T01:00:00Z"}


@pytest.mark.parametrize(
    ("changes", "place", "expected"),
    [
        pytest.param(
            [gone("a2", error="no route to host")],
            "a2",
            {"reachable": False, "ray": "joined", "reason": "no route to host", "stamp": "unknown", "driver": None},
            id="unreachable, not yet missed by Ray",
        ),
        pytest.param(
            [gone("a2", error="no route"), nodes(node("a1"))],
            "a2",
            {"ray": "unreachable", "gpus": {"declared": 1, "total": 0, "used": 0, "missing": 1}},
            id="unreachable",
        ),
        pytest.param(
            [of("a2", quarantine=QUARANTINED), nodes(node("a1"))],
            "a2",
            {
                "quarantine": QUARANTINED,
                "since": "2026-11-22T01:00:00Z",
                "reason": "quarantine: graph gate timed out (by ada@ops1)",
            },
            id="quarantined",
        ),
        pytest.param(
            [of("a2", quarantine={"error": "quarantine.json: is not JSON"})],
            "a2",
            {"reason": "quarantine: quarantine.json: is not JSON"},
            id="damaged quarantine",
        ),
        pytest.param(
            [of("a2", fingerprint={**FINGERPRINT, "driver": "550.90.07"})],
            "a2",
            {"stamp": "void: driver 550.127.05 → 550.90.07"},
            id="void stamp",
        ),
        pytest.param(
            [of("a2", stamps={"host": None, "replica": None})],
            "a2",
            {"stamp": "none", "reason": "no host stamp: its gates have not passed"},
            id="no stamp",
        ),
        pytest.param(
            [of("a2", filter={"wanted": True, "problem": "its table is not loaded"})],
            "a2",
            {
                "filter": "wrong: its table is not loaded",
                "reason": "packet filter wrong: its table is not loaded",
                "ray": "joined",
            },
            id="no packet filter",
        ),
        pytest.param(
            [of("a2", filter={"wanted": False, "problem": ""})],
            "a2",
            {"filter": "off", "reason": ""},
            id="packet filter turned off",
        ),
        pytest.param(
            [of("a2", tunnel=tunnel(a1=CLOCK - 12))],
            "a2",
            {"tunnel": "on", "tunnel_handshakes": {"a1": 12.0}, "reason": ""},
            id="tunnel",
        ),
        pytest.param(
            [of("a2", tunnel={"wanted": True, "problem": "lockstep0 is not up", "handshakes": {}})],
            "a2",
            {
                "tunnel": "wrong: lockstep0 is not up",
                "tunnel_handshakes": {},
                "reason": "tunnel wrong: lockstep0 is not up",
            },
            id="tunnel is down",
        ),
        pytest.param(
            [of("a2", tunnel=tunnel(a1=CLOCK - 600)), nodes(node("a1"))],
            "a2",
            {
                "tunnel": "on",
                "ray": "not joined",
                "reason": "Ray runs here, but this host is not among the head's nodes "
                "(no handshake with a1 through the tunnel for 10 min)",
            },
            id="nothing passes the tunnel",
        ),
        pytest.param(
            [of("a2", tunnel=tunnel(a1=None)), nodes(node("a1"))],
            "a2",
            {
                "tunnel_handshakes": {"a1": None},
                "reason": "Ray runs here, but this host is not among the head's nodes "
                "(no handshake with a1 through the tunnel yet)",
            },
            id="nothing has passed the tunnel yet",
        ),
        pytest.param(
            [of("a2", tunnel=tunnel(a1=CLOCK - 20)), nodes(node("a1"))],
            "a2",
            {"reason": "Ray runs here, but this host is not among the head's nodes"},
            id="the tunnel is not the cause",
        ),
        pytest.param(
            [of("a2", tunnel={"error": "tunnel.wanted is 5"})], "a2", {"tunnel": "unknown"}, id="tunnel unknown"
        ),
        pytest.param(
            [of("a2", driver={"loaded_version": "550.90.07", "package_version": "550.127.05"})],
            "a2",
            {"driver": "550.90.07", "reason": "driver: 550.90.07 is loaded, 550.127.05 is installed"},
            id="driver not reloaded",
        ),
        pytest.param(
            [of("a2", driver={"error": "OSError: no"})],
            "a2",
            {"driver": None, "reason": "driver: OSError: no"},
            id="driver unknown",
        ),
        pytest.param(
            [of("a2", units={"lockstep-ray.service": unit("inactive", "exec-condition")}), nodes(node("a1"))],
            "a2",
            {
                "ray": "not admitted",
                "gpus": {"declared": 1, "total": 0, "used": 0, "missing": 1},
                "reason": "Ray is inactive (exec-condition)",
            },
            id="not admitted",
        ),
        pytest.param(
            [of("a2", units={"lockstep-ray.service": unit("failed", "exit-code")}), nodes(node("a1"))],
            "a2",
            {"ray": "failed", "reason": "Ray is failed (exit-code)"},
            id="Ray failed",
        ),
        pytest.param(
            [nodes(node("a1"), node("a2", alive=False))],
            "a2",
            {"ray": "not joined", "reason": "Ray runs here, but this host is not among the head's nodes"},
            id="dead for the head",
        ),
        pytest.param([nodes(node("a1"), node("a2", draining=True))], "a2", {"ray": "draining"}, id="draining"),
        pytest.param(
            [of("a1", ray={"head": "down", "nodes": [], "error": "refused"})],
            "a2",
            {"ray": "running", "gpus": {"declared": 1, "total": None, "used": None, "missing": None}},
            id="head does not report",
        ),
        pytest.param(
            [nodes(node("a1"), node("a2", gpus_free=1.0))],
            "a2",
            {"gpus": {"declared": 1, "total": 1, "used": 0, "missing": 0}},
            id="free GPU",
        ),
        pytest.param(
            [engine(phase="waiting", ready=False, reason="a2 has not joined")],
            None,
            {"serving": False, "engine": "waiting", "reason": "a2 has not joined"},
            id="engine waits",
        ),
        pytest.param(
            [engine(phase="given_up", reason="5 failures, the last: CUDA error 802", last_failure="CUDA error 802")],
            None,
            {"reason": "5 failures, the last: CUDA error 802"},
            id="the last failure is not shown twice",
        ),
        pytest.param(
            [engine(phase="given_up", ready=False, reason="5 failures", last_failure="CUDA error 802")],
            None,
            {"serving": False, "engine": "given_up", "reason": "5 failures; CUDA error 802"},
            id="engine gave up",
        ),
        pytest.param([engine(ready=False)], None, {"serving": False, "engine": "serving"}, id="no recent completion"),
        pytest.param(
            [
                engine(
                    ready=False,
                    reason="layout tp2pp1, rung full, but no token comes: rank 1 on a2 (pid 7) is stopped",
                    suspect={
                        "code": "stopped",
                        "reason": "rank 1 on a2",
                        "where": [{"host": "a2", "rank": 1, "pid": 7}],
                    },
                )
            ],
            None,
            {
                "serving": False,
                "suspect": {
                    "code": "stopped",
                    "reason": "rank 1 on a2",
                    "where": [{"host": "a2", "rank": 1, "pid": 7}],
                    "evidence": [],
                },
                "reason": "layout tp2pp1, rung full, but no token comes: rank 1 on a2 (pid 7) is stopped",
            },
            id="no token, and whose rank it is",
        ),
        pytest.param(
            [
                of(
                    "a1",
                    units={"lockstep-vllm.service": unit("failed", "exit-code"), "lockstep-ray.service": unit()},
                    engine=None,
                )
            ],
            None,
            {"serving": False, "engine": "failed", "reason": "the engine is failed"},
            id="unit failed",
        ),
        pytest.param(
            [
                of(
                    "a1",
                    units={"lockstep-vllm.service": unit("failed", "exit-code"), "lockstep-ray.service": unit()},
                    engine={"phase": "given_up", "reason": "6 failures in a row", "since": "2026-11-22T01:09:00Z"},
                )
            ],
            None,
            {"engine": "given_up", "reason": "6 failures in a row", "since": "2026-11-22T01:09:00Z"},
            id="unit failed as the supervisor gave up",
        ),
        pytest.param(
            [
                of(
                    "a1",
                    engine=None,
                    units={"lockstep-vllm.service": unit("inactive", "exec-condition")},
                    stamps={"host": None, "replica": None},
                )
            ],
            None,
            {"engine": "not admitted", "stamp": "none", "reason": "a1: no host stamp: its gates have not passed"},
            id="engine not admitted",
        ),
        pytest.param(
            [gone("a1", error="timed out")],
            None,
            {
                "serving": False,
                "engine": "unreachable",
                "stamp": "unknown",
                "gpus": {"total": None, "used": None, "missing": None},
                "reason": "a1: timed out",
            },
            id="head lost",
        ),
        pytest.param(
            [of("a1", stamps={"host": None, "replica": {"hosts": {"a1": "d1", "a3": "d1"}}})],
            None,
            {"stamp": "void: given for a1, a3"},
            id="stamp of other hosts",
        ),
        pytest.param(
            [of("a2", fingerprint_digest="d2")],
            None,
            {"stamp": "void: a2 changed since"},
            id="stamp of another fingerprint",
        ),
        pytest.param(
            [engine(tensor_parallel_size=1, layout="small", reason="a2 was away for 300 s")],
            None,
            {"serving": True, "layout": "small", "reason": "a2 was away for 300 s"},
            id="smaller layout, and why",
        ),
    ],
)
def test_one_thing_is_not_well(changes: list[Change], place: str | None, expected: dict[str, Any]) -> None:
    found = probe()
    for change in changes:
        change(found)
    status = cluster_status.build(found)
    (replica,) = status["replicas"]
    shown = replica if place is None else next(host for host in replica["hosts"] if host["host"] == place)
    assert {key: shown[key] for key in expected} == expected
    assert status_table.as_text(status)
    assert json.loads(status_table.as_json(status)) == status


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ([], None),
        ([of("a1", tunnel={}), of("a2", tunnel={})], None),
        (
            [of("a1", tunnel=tunnel(a2=CLOCK - 12)), of("a2", tunnel=tunnel(a1=CLOCK - 95))],
            "tunnel: up on 2 of 2 hosts; last handshakes 12 s to 1 min 35 s ago",
        ),
        (
            [of("a1", tunnel=tunnel(a2=CLOCK - 12)), of("a2", tunnel=tunnel(a1=CLOCK - 12))],
            "tunnel: up on 2 of 2 hosts; last handshakes 12 s ago",
        ),
        (
            [of("a1", tunnel=tunnel(a2=None)), gone("a2")],
            "tunnel: up on 1 of 2 hosts; no handshake yet: a1 with a2",
        ),
        (
            [of("a2", tunnel={"wanted": True, "problem": "lockstep0 is not up", "handshakes": {}})],
            "tunnel: up on 0 of 2 hosts",
        ),
    ],
)
def test_a_tunnel_is_one_line_of_its_replica(changes: list[Change], line: str | None) -> None:
    found = probe()
    for change in changes:
        change(found)
    text = status_table.as_text(cluster_status.build(found))
    assert [shown.strip() for shown in text.splitlines() if "tunnel:" in shown] == ([] if line is None else [line])


def test_any_missing_part_is_tolerated() -> None:
    whole = state(head=True)
    for key in whole:
        for broken in ({}, {"error": "gone"}, None):
            found = probe()
            found["hosts"]["a1"]["state"] = {**whole, key: broken}
            assert status_table.as_text(cluster_status.build(found))
            found["hosts"]["a1"]["state"] = {name: part for name, part in whole.items() if name != key}
            assert status_table.as_text(cluster_status.build(found))


@pytest.mark.parametrize(
    "found", [{}, {"replicas": {"r": {}}}, {"replicas": {"r": {"head": "x", "hosts": ["x"]}}, "routers": ["y"]}]
)
def test_an_empty_probe(found: dict[str, Any]) -> None:
    status = cluster_status.build(found)
    assert status_table.as_text(status)
    assert all(not replica["serving"] for replica in status["replicas"])


def test_a_rollout_under_way_is_shown() -> None:
    found = probe()
    found["hosts"]["a1"]["state"]["lock"] = {"run": "r1", "holder": "ada@ops1", "since": "2026-11-22T00:58:00Z"}
    found["hosts"]["a1"]["state"]["request"] = {"action": "pause", "by": "bob@ops2", "reason": "peak"}
    text = status_table.as_text(cluster_status.build(found))
    assert "a rollout is under way: run r1 of ada@ops1 for 12 min" in text
    assert "requested of the rollout: pause, by bob@ops2: peak" in text


def test_advice_from_the_log_is_shown_below_the_replica() -> None:
    found = probe()
    engine(findings=[{"level": "warning", "finding": "The kernel is slow.", "remediation": "Tune it."}])(found)
    status = cluster_status.build(found)
    assert status["replicas"][0]["advice"] == ["The kernel is slow. Tune it."]
    assert status_table.as_text(status).splitlines()[1] == "  advice: The kernel is slow. Tune it."


def test_what_the_hosts_report_is_not_shown_twice() -> None:
    found = probe()
    found["hosts"]["a1"]["state"].update(engine=None, units={}, quarantine=QUARANTINED, ray=None)
    text = status_table.as_text(cluster_status.build(found))
    assert text.count("graph gate timed out") == 1
    assert text.startswith("replica_a: NOT SERVING · unknown\n  host ")


def test_json_can_be_cut_out_of_a_playbooks_output() -> None:
    lines = status_table.as_json(cluster_status.build(probe())).splitlines()
    assert (lines[0], lines[-1]) == ("{", "}")
    assert all(line.startswith(" ") for line in lines[1:-1])


def test_what_the_inventory_does_not_want_is_shown_with_the_command_that_removes_it() -> None:
    c1 = Unexpected(
        UnexpectedCode.NO_REPLICA,
        "c1",
        "c1",
        True,
        "c1 is in no replica",
        "ansible-playbook playbooks/remove.yml --limit c1",
    )
    odd = Unexpected(UnexpectedCode.RAY_NODE, "x;y", "a1", True, "x;y is in Ray of replica_a", "")
    status = cluster_status.build(probe(), found=(c1, odd), unanswered=("switch1", "switch2"))
    assert json.loads(status_table.as_json(status))["unexpected"][0] == {
        "code": "no_replica",
        "name": "c1",
        "seen_on": "c1",
        "serving": True,
        "cause": "c1 is in no replica",
        "next": "ansible-playbook playbooks/remove.yml --limit c1",
    }
    assert status_table.as_text(status).splitlines()[-7:] == [
        "",
        "unexpected",
        "  c1 is in no replica",
        "    next: ansible-playbook playbooks/remove.yml --limit c1",
        "  x;y is in Ray of replica_a",
        "",
        "in no replica, and no answer: switch1, switch2",
    ]
