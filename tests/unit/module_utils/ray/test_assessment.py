"""Who is missing and why: tables of what was seen, and the reason that must be given."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.ray.assessment import Observation, assess, evaluate
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.codes import FINAL, Cause, StartCode
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.gcs import Node, Table
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.peer_status import HostStatus, RayStatus, UnitStatus
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.shape import shape_of

PEERS = {"a1": "10.0.0.11", "a2": "10.0.0.12"}
IDENTITY = {
    "host": "a1",
    "replica": "replica_a",
    "gpus": 8,
    "peers": PEERS,
    "head": {"host": "a1", "address": "10.0.0.11"},
}
SHAPE = shape_of(IDENTITY)
RUNNING = UnitStatus("active", "success")
STOPPED = UnitStatus("inactive", "success")
REFUSED = UnitStatus("inactive", "exec-condition")
STARTING = UnitStatus("activating", "success")
CRASHED = UnitStatus("failed", "start-limit-hit")
ABSENT = UnitStatus("inactive", present=False)
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


def reports(**status: Any) -> dict[str, HostStatus]:
    return {"a2": HostStatus("a2", **{"driver": "550.127.05", "unit": RUNNING, **status})}


A1, A2 = node("a1"), node("a2")
DEAD = node("a2", alive=False, free={}, death="received SIGTERM")


UNIT = "lockstep-ray.service"
NO_DRIVER = "the NVIDIA driver is not loaded"
BY_ADA = {"reason": "DIMM", "owner": "ada@ops", "kind": "operator"}
BY_A_RUN = {"reason": "driver roll", "kind": "changing"}


def ray(code: str, reason: str) -> dict[str, HostStatus]:
    return reports(ray=RayStatus(StartCode(code), reason))


SILENT = {"a2": HostStatus("a2", answered=False, error="no answer")}
STATUSES: list[tuple[dict[str, HostStatus], str, str]] = [
    ({}, "joining", "is not in Ray's table"),
    (SILENT, "unreachable", "10.0.0.12 gives no status on port 6386 (no answer)"),
    (reports(quarantine=BY_ADA, unit=REFUSED), "quarantined", "is in quarantine: DIMM (by ada@ops)"),
    (reports(quarantine=BY_A_RUN, unit=STOPPED), "changing", "is in quarantine: driver roll"),
    (reports(unit=REFUSED, refusal=VOID), "not_admitted", f"may not join: {VOID}"),
    (reports(unit=REFUSED, refusal=VOID, driver=None), "not_admitted", f"{NO_DRIVER}; may not join: {VOID}"),
    (reports(unit=STOPPED, refusal=VOID), "unit_not_started", f"{UNIT} is not started"),
    (reports(unit=STOPPED, refusal=VOID, driver=None), "driver_not_loaded", f"{NO_DRIVER}; {UNIT} is not started"),
    (reports(unit=STOPPED), "unit_not_started", f"{UNIT} is not started"),
    (reports(unit=STARTING, driver=None), "driver_not_loaded", f"{NO_DRIVER}; {UNIT} is activating"),
    (
        reports(unit=CRASHED, ray=RayStatus(reason="disk full")),
        "unit_failed",
        f"{UNIT} has failed (start-limit-hit): disk full",
    ),
    (reports(unit=ABSENT), "unit_absent", f"has no unit {UNIT}"),
    (ray("token_refused", "the head refuses its token"), "token_refused", "the head refuses its token"),
    (ray("version_refused", "runs Ray 2.59.0"), "version_refused", "runs Ray 2.59.0"),
    (ray("address_absent", "its address is on none"), "address_absent", "its address is on none"),
    (ray("waiting_for_head", "waiting for the head a1"), "waiting_for_head", "waiting for the head a1"),
    (ray("starting", "Ray is starting"), "joining", f"{UNIT} is active, its node is not in Ray's table yet"),
    (
        reports(refusal=VOID),
        "joining",
        f"{UNIT} is active, its node is not in Ray's table yet",
    ),  # it is no longer asked
]
ROWS: list[tuple[Node, str, str]] = [
    (DEAD, "dead", "is not in Ray's table; Ray lost its node: received SIGTERM"),
    (node("a2", alive=False), "dead", "is not in Ray's table"),
    (node("a2", address="10.1.0.12"), "wrong_address", "joined as 10.1.0.12, its address is 10.0.0.12"),
    (node("a2", draining=True), "draining", "is draining in Ray"),
    (node("a2", gpus=7), "too_few_gpus", "has 7 GPUs of 8"),
]
HOPELESS = {
    "quarantined", "not_admitted", "unit_absent", "unit_failed", "token_refused", "version_refused", "address_absent",
    "wrong_address", "too_few_gpus", "wrong_labels",
}  # fmt: skip
SEEN = [
    *((Observation(up(A1), status), code, reason) for status, code, reason in STATUSES),
    *((Observation(up(A1, row)), code, reason) for row, code, reason in ROWS),
    (
        Observation(up(A1, A2), silent=frozenset({"a2"})),
        "silent",
        "is in Ray's table but 10.0.0.12:6380 accepts no connection",
    ),
]


@pytest.mark.parametrize(("seen", "code", "reason"), SEEN)
def test_who_is_missing_and_why(seen, code, reason):
    assessment = assess(SHAPE, seen)
    assert [(one.host, one.code, one.reason) for one in assessment.missing] == [("a2", code, reason)]
    assert not assessment.ready
    assert [counted.host for counted in assessment.counted] == ["a1"]
    assert evaluate(SHAPE, seen).answer == ("hopeless" if code in HOPELESS else "wait")
    assert reason in evaluate(SHAPE, seen).reason


def test_every_cause_is_in_the_table_but_those_of_shapes():
    asked_for_by_shapes = {Cause.GPUS_HELD, Cause.WRONG_LABELS}
    assert {code for _seen, code, _reason in SEEN} == set(Cause) - asked_for_by_shapes


def test_these_causes_need_somebody_to_act():
    assert {code.value for code in FINAL} == HOPELESS


def test_all_there():
    assert evaluate(SHAPE, Observation(up(A1, A2))).answer == "ready"
    assert str(assess(SHAPE, Observation(up(A1, A2)))) == "2 hosts with 16 GPUs are there"


@pytest.mark.parametrize(
    ("desired", "a2", "code", "reason"),
    [
        ({"free": True}, node("a2", free={"GPU": 3}), "gpus_held", "3 of 8 GPUs are free"),
        ({"free": True, "gpus_per_host": 1}, node("a2", free={}), "gpus_held", "0 of 1 GPUs are free"),
        ({"labels": {"rack": "r7"}}, node("a2", labels={"rack": "r8"}), "wrong_labels", "carries rack=r8"),
        ({"labels": {"rack": "r7"}}, A2, "wrong_labels", "carries rack=absent"),
    ],
)
def test_who_is_there_and_does_not_count(desired, a2, code, reason):
    seen = Observation(up(node(labels={"rack": "r7"}), a2))
    missing = assess(shape_of(IDENTITY, desired), seen).missing
    assert [(one.host, one.code, one.reason) for one in missing] == [("a2", code, reason)]


MOVED = node("a2", node_id="moved", address="10.1.0.12", started=300.0)
AGAIN = node("a2", node_id="again", started=200.0)


@pytest.mark.parametrize("rows", [(A2, AGAIN), (AGAIN, A2), (AGAIN, MOVED), (MOVED, A2, AGAIN)])
def test_of_a_hosts_living_rows_the_newest_at_its_address_counts(rows):
    counted = assess(SHAPE, Observation(up(A1, *rows))).counted
    assert [one.node_id for one in counted] == ["id-a1", "again"]


def test_dead_row_beside_a_living_one_is_history():
    assert evaluate(SHAPE, Observation(up(DEAD, A1, A2))).answer == "ready"


def test_unexpected_host_does_not_stand_in():
    seen = Observation(up(A1, node("x9"), Node("id", "10.0.0.50", resources={"GPU": 8}, free={"GPU": 8})))
    assert evaluate(SHAPE, seen).answer == "wait"


def test_spare_stands_in_for_one_in_quarantine():
    spare = shape_of({**IDENTITY, "peers": {**PEERS, "a3": "10.0.0.13"}}, {"hosts": 2})
    status = reports(quarantine={"reason": "DIMM", "kind": "operator"}, unit=REFUSED)
    assert evaluate(spare, Observation(up(A1), status)).answer == "wait"
    assert evaluate(spare, Observation(up(A1, node("a3", address="10.0.0.13")), status)).answer == "ready"


def test_spare_does_not_stand_in_while_ray_may_still_place_ranks_on_the_lost_host():
    spare = shape_of({**IDENTITY, "peers": {**PEERS, "a3": "10.0.0.13"}}, {"hosts": 2, "free": True})
    a3, held = node("a3", address="10.0.0.13"), node("a2", free={"GPU": 0})
    for lost in (A2, held):
        evaluation = evaluate(spare, Observation(up(A1, lost, a3), silent=frozenset({"a2"})))
        assert evaluation.answer == "wait"
        assert evaluation.reason.startswith("waiting for Ray to mark a2 dead; a2: is in Ray's table but ")
    assert evaluate(spare, Observation(up(A1, DEAD, a3))).answer == "ready"


@pytest.mark.parametrize(
    ("desired", "nodes", "lacking"),
    [
        ({"gpus": 17}, (A1, A2), "16 of 17 GPUs are there"),
        ({"gpus": 12, "gpus_per_host": 4}, (A1, A2), ""),
        ({"resources": {"license": 3}}, (node(resources={"GPU": 8, "license": 2}), A2), "2 of 3 license are there"),
        ({"resources": {"license": 2}}, (node(resources={"GPU": 8, "license": 2}), A2), ""),
        ({"labels": {"rack": "r7"}}, (node(labels={"rack": "r7"}), A2), "1 of 2 hosts, 8 of 16 GPUs are there"),
        ({"labels": {"rack": "r7"}}, (node(labels={"rack": "r7"}), node("a2", labels={"rack": "r7"})), ""),
        ({"free": True}, (A1, node("a2", free={"GPU": 3})), "1 of 2 hosts, 8 of 16 GPUs are there"),
        ({"hosts": 1}, (A2,), ""),
        ({"members": ["a2"]}, (A2,), ""),
        ({"members": ["a2"]}, (A1,), "0 of 1 hosts, 0 of 8 GPUs are there"),
    ],
)
def test_shapes(desired, nodes, lacking):
    shape = shape_of({**IDENTITY, "gpus": 8}, desired)
    assert assess(shape, Observation(up(*nodes))).lacking == lacking


DOWN = Table("down", error="connection refused")


@pytest.mark.parametrize(
    ("table", "head", "answer", "reason"),
    [
        (DOWN, None, "wait", "the head does not answer (connection refused)"),
        (DOWN, HostStatus("a1", driver="550", unit=RUNNING), "wait", "the head does not answer"),
        (DOWN, HostStatus("a1", driver="550", unit=CRASHED), "hopeless", "a1: lockstep-ray.service has failed"),
        (DOWN, HostStatus("a1", driver="550", unit=REFUSED, refusal="void"), "hopeless", "a1: may not join: void"),
        (DOWN, HostStatus("a1", answered=False, error="no answer"), "wait", "the head does not answer"),
        (Table("refused", error="InvalidAuthToken"), None, "hopeless", "the head refuses this host's token (InvalidAuthToken)"),
    ],
)  # fmt: skip
def test_head_that_is_away(table, head, answer, reason):
    seen = Observation(table, {"a1": head} if head else {})
    evaluation = evaluate(SHAPE, seen)
    assert evaluation.answer == answer
    assert reason in evaluation.reason


def test_head_that_is_gone_ends_the_wait_though_a_spare_could_serve():
    """Nobody can join without the head, so how many others are fine does not matter."""
    three = shape_of({**IDENTITY, "peers": {**PEERS, "a3": "10.0.0.13"}}, {"hosts": 2})
    seen = Observation(DOWN, {"a1": HostStatus("a1", driver="550", unit=CRASHED)})
    assert evaluate(three, seen).answer == "hopeless"
