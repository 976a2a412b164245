"""Who is missing and why: tables of what was seen, and what must be said of it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.ray import wait as ray_wait
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.gcs import Node, Table
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.peer_status import HostStatus
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.wait import Observation, Shape

PEERS = {"a1": "10.0.0.11", "a2": "10.0.0.12"}
IDENTITY = {
    "host": "a1",
    "replica": "replica_a",
    "gpus": 8,
    "peers": PEERS,
    "head": {"host": "a1", "address": "10.0.0.11"},
}
WANTED = ray_wait.shape_of(IDENTITY)
RUNNING = {"active": "active", "sub": "running", "result": "success", "present": True}
STOPPED = {"active": "inactive", "sub": "dead", "result": "success", "present": True}
REFUSED = {**STOPPED, "result": "exec-condition"}
STARTING = {**RUNNING, "active": "activating", "sub": "start"}
CRASHED = {"active": "failed", "sub": "failed", "result": "start-limit-hit", "present": True}
VOID = "a2: the host stamp is void: driver 550.127.05 → 550.90.07"


def node(host: str = "a1", gpus: float = 8, **changed: Any) -> Node:
    given = {
        "node_id": f"id-{host}",
        "address": PEERS.get(host, "10.0.0.99"),
        "port": 6380,
        "host": host,
        "resources": {"GPU": gpus},
        "free": {"GPU": gpus},
        "started": 100.0,
    }
    return Node(**{**given, **changed})


def up(*nodes: Node) -> Table:
    return Table("up", nodes)


def says(**told: Any) -> dict[str, HostStatus]:
    return {"a2": HostStatus("a2", **{"driver": "550.127.05", "unit": RUNNING, **told})}


A1, A2 = node("a1"), node("a2")
DEAD = node("a2", alive=False, free={}, death="received SIGTERM")


UNIT = "lockstep-ray.service"
NO_DRIVER = "the NVIDIA driver is not loaded"
BY_ADA = {"reason": "DIMM", "owner": "ada@ops", "kind": "operator"}
BY_A_RUN = {"reason": "driver roll", "kind": "changing"}


def ray(code: str, reason: str) -> dict[str, HostStatus]:
    return says(ray={"code": code, "reason": reason})


SILENT = {"a2": HostStatus("a2", answered=False, error="no answer")}
TOLD: list[tuple[dict[str, HostStatus], str, str]] = [
    ({}, "joining", "is not in Ray's table"),
    (SILENT, "unreachable", "10.0.0.12 says nothing of itself (no answer)"),
    (says(quarantine=BY_ADA, unit=REFUSED), "quarantined", "is in quarantine: DIMM (by ada@ops)"),
    (says(quarantine=BY_A_RUN, unit=STOPPED), "changing", "is in quarantine: driver roll"),
    (says(unit=REFUSED, refusal=VOID), "not_admitted", f"may not join: {VOID}"),
    (says(unit=REFUSED, refusal=VOID, driver=None), "not_admitted", f"{NO_DRIVER}; may not join: {VOID}"),
    (says(unit=STOPPED, refusal=VOID), "unit_not_started", f"{UNIT} is not started"),
    (says(unit=STOPPED, refusal=VOID, driver=None), "driver_not_loaded", f"{NO_DRIVER}; {UNIT} is not started"),
    (says(unit=STOPPED), "unit_not_started", f"{UNIT} is not started"),
    (says(unit=STARTING, driver=None), "driver_not_loaded", f"{NO_DRIVER}; {UNIT} is activating"),
    (says(unit=CRASHED, ray={"reason": "disk full"}), "unit_failed", f"{UNIT} has failed (start-limit-hit): disk full"),
    (says(unit={"present": False, "active": "inactive"}), "unit_absent", f"has no unit {UNIT}"),
    (ray("token_refused", "the head refuses its token"), "token_refused", "the head refuses its token"),
    (ray("version_refused", "runs Ray 2.59.0"), "version_refused", "runs Ray 2.59.0"),
    (ray("address_absent", "its address is on none"), "address_absent", "its address is on none"),
    (ray("waiting_for_head", "waits for the head a1"), "waiting_for_head", "waits for the head a1"),
    (ray("starting", "Ray is starting"), "joining", f"{UNIT} is active, its node is not in Ray's table yet"),
]
ROWS: list[tuple[Node, str, str]] = [
    (DEAD, "dead", "is not in Ray's table; Ray lost its node: received SIGTERM"),
    (node("a2", address="10.1.0.12"), "wrong_address", "joined as 10.1.0.12, its address is 10.0.0.12"),
    (node("a2", draining=True), "draining", "is draining in Ray"),
    (node("a2", gpus=7), "too_few_gpus", "has 7 GPUs of 8"),
]
SEEN = [
    *((Observation(up(A1), told), code, words) for told, code, words in TOLD),
    *((Observation(up(A1, row)), code, words) for row, code, words in ROWS),
    (
        Observation(up(A1, A2), silent=frozenset({"a2"})),
        "silent",
        "is in Ray's table but 10.0.0.12:6380 accepts no connection",
    ),
]


@pytest.mark.parametrize(("seen", "code", "words"), SEEN)
def test_who_is_missing_and_why(seen, code, words):
    assessment = ray_wait.assess(WANTED, seen)
    assert [(one.host, one.code, one.reason) for one in assessment.missing] == [("a2", code, words)]
    assert not assessment.ready
    assert [counted.host for counted in assessment.counted] == ["a1"]
    assert ray_wait.judge(WANTED, seen).answer == ("hopeless" if code in ray_wait.FINAL else "wait")
    assert words in ray_wait.judge(WANTED, seen).reason


def test_all_there():
    assert ray_wait.judge(WANTED, Observation(up(A1, A2))).answer == "ready"


def test_dead_row_beside_a_living_one_is_history():
    assert ray_wait.judge(WANTED, Observation(up(DEAD, A1, A2))).answer == "ready"


def test_stranger_does_not_stand_in():
    seen = Observation(up(A1, node("x9"), Node("id", "10.0.0.50", resources={"GPU": 8}, free={"GPU": 8})))
    assert ray_wait.judge(WANTED, seen).answer == "wait"


def test_spare_stands_in_for_one_in_quarantine():
    spare = ray_wait.shape_of({**IDENTITY, "peers": {**PEERS, "a3": "10.0.0.13"}}, {"hosts": 2})
    told = says(quarantine={"reason": "DIMM", "kind": "operator"}, unit=REFUSED)
    assert ray_wait.judge(spare, Observation(up(A1), told)).answer == "wait"
    assert ray_wait.judge(spare, Observation(up(A1, node("a3", address="10.0.0.13")), told)).answer == "ready"


def test_spare_does_not_stand_in_while_ray_may_still_place_ranks_on_the_lost_host():
    spare = ray_wait.shape_of({**IDENTITY, "peers": {**PEERS, "a3": "10.0.0.13"}}, {"hosts": 2, "free": True})
    a3, held = node("a3", address="10.0.0.13"), node("a2", free={"GPU": 0})
    for lost in (A2, held):
        judgement = ray_wait.judge(spare, Observation(up(A1, lost, a3), silent=frozenset({"a2"})))
        assert judgement.answer == "wait"
        assert judgement.reason.startswith("Ray has not given up a2 yet; a2: is in Ray's table but ")
    assert ray_wait.judge(spare, Observation(up(A1, DEAD, a3))).answer == "ready"


@pytest.mark.parametrize(
    ("wanted", "nodes", "lacking"),
    [
        ({"gpus": 17}, (A1, A2), "16 of 17 GPUs are there"),
        ({"gpus": 12, "gpus_per_host": 4}, (A1, A2), ""),
        ({"resources": {"license": 3}}, (node(resources={"GPU": 8, "license": 2}), A2), "2 of 3 license are there"),
        ({"labels": {"rack": "r7"}}, (node(labels={"rack": "r7"}), A2), "1 of 2 hosts, 8 of 16 GPUs are there"),
        ({"labels": {"rack": "r7"}}, (node(labels={"rack": "r7"}), node("a2", labels={"rack": "r7"})), ""),
        ({"free": True}, (A1, node("a2", free={"GPU": 3})), "1 of 2 hosts, 8 of 16 GPUs are there"),
        ({"hosts": 1}, (A2,), ""),
        ({"members": ["a2"]}, (A2,), ""),
        ({"members": ["a2"]}, (A1,), "0 of 1 hosts, 0 of 8 GPUs are there"),
    ],
)
def test_shapes(wanted, nodes, lacking):
    shape = ray_wait.shape_of({**IDENTITY, "gpus": 8}, wanted)
    assert ray_wait.assess(shape, Observation(up(*nodes))).lacking == lacking


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({}, ""),
        ({"hosts": 3}, "3 hosts are wanted, the replica has 2: a1, a2"),
        ({"gpus_per_host": 16}, "16 GPUs per host are wanted, the inventory declares 8"),
        ({"gpus": 17}, "17 GPUs are wanted, the inventory declares 8 on 2 hosts"),
    ],
)
def test_more_than_the_inventory_has(wanted, words):
    assert ray_wait.impossible(ray_wait.shape_of(IDENTITY, wanted)) == words


def test_impossible_is_said_without_looking():
    waited = ray_wait.wait(ray_wait.shape_of(IDENTITY, {"hosts": 3}), deadline=60)
    assert (waited.ready, waited.code, waited.seconds) == (False, "impossible", 0.0)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [({"gpu": 8}, "unknown in a wanted shape: gpu"), ({"members": ["a9"]}, "a9: no host of replica replica_a")],
)
def test_shape_that_makes_no_sense(wanted, words):
    with pytest.raises(ray_wait.ShapeError, match=words):
        ray_wait.shape_of(IDENTITY, wanted)


DOWN = Table("down", error="connection refused")


@pytest.mark.parametrize(
    ("table", "head", "answer", "words"),
    [
        (DOWN, None, "wait", "the head does not answer (connection refused)"),
        (DOWN, HostStatus("a1", driver="550", unit=RUNNING), "wait", "the head does not answer"),
        (DOWN, HostStatus("a1", driver="550", unit=CRASHED), "hopeless", "a1: lockstep-ray.service has failed"),
        (DOWN, HostStatus("a1", driver="550", unit=REFUSED, refusal="void"), "hopeless", "a1: may not join: void"),
        (DOWN, HostStatus("a1", answered=False, error="no answer"), "wait", "the head does not answer"),
        (Table("refused", error="InvalidAuthToken"), None, "hopeless", "the head refuses this host's token (InvalidAuthToken)"),
    ],
)  # fmt: skip
def test_head_that_is_away(table, head, answer, words):
    seen = Observation(table, {"a1": head} if head else {})
    judgement = ray_wait.judge(WANTED, seen)
    assert judgement.answer == answer
    assert words in judgement.reason


def test_head_that_is_gone_ends_the_wait_though_a_spare_could_serve():
    """Nobody can join without the head, so how many others are fine does not matter."""
    three = ray_wait.shape_of({**IDENTITY, "peers": {**PEERS, "a3": "10.0.0.13"}}, {"hosts": 2})
    seen = Observation(DOWN, {"a1": HostStatus("a1", driver="550", unit=CRASHED)})
    assert ray_wait.judge(three, seen).answer == "hopeless"


def test_result_can_be_written_as_json():
    import json

    assessment = ray_wait.assess(WANTED, Observation(up(A1)))
    waited = ray_wait.Waited(False, "deadline", "a2", 1.23456, assessment.counted, assessment.missing)
    record = json.loads(json.dumps(waited.as_dict()))
    assert (record["seconds"], record["nodes"][0]["host"]) == (1.235, "a1")
    assert record["missing"] == [{"host": "a2", "code": "joining", "reason": "is not in Ray's table", "final": False}]


def test_shape_defaults_to_the_whole_replica():
    shape = Shape(PEERS, 2, gpus_per_host=8, gpus_declared=8, head="10.0.0.11", head_host="a1")
    assert ray_wait.shape_of(IDENTITY) == shape
    assert WANTED.gpus_wanted == 16
