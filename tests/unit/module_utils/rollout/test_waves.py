from __future__ import annotations

import dataclasses
import datetime
import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.core.window import Window
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.policy import Policy, Share
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Need, SkipCode
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.waves import (
    Refusals,
    ReplicaNeed,
    Skip,
    WavePlan,
    waves,
)


def at(clock: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(f"2026-11-22T{clock}:00+00:00")


NOON = at("12:00")


def replica(
    name: str, need: str = Need.DUE, serving: bool = True, zone: str | None = None, domains: tuple[str, ...] = ()
) -> ReplicaNeed:
    return ReplicaNeed(name, (f"{name}1", f"{name}2"), zone, serving, Need(need), {f"{name}1": (str(need),)}, domains)


def in_domain(name: str, *domains: str, **about: Any) -> ReplicaNeed:
    return replica(name, domains=domains, **about)


def policy_of(values: dict[str, object]) -> Policy:
    """A policy with its shares and its window as an operator writes them."""
    parsed = dict(values)
    for name in {"wave_size", "capacity_floor"} & set(values):
        parsed[name] = Share.parse(str(values[name]))
    if "window" in values:
        parsed["window"] = Window.parse(str(values["window"]))
    return Policy(**parsed)  # type: ignore[arg-type]


def shape(plan: WavePlan | Refusals) -> list[list[str]]:
    assert isinstance(plan, WavePlan), plan
    return [list(wave.replicas) for wave in plan.waves]


DUE8 = [replica(name) for name in "abcdefgh"]


@pytest.mark.parametrize(
    ("replicas", "policy", "desired"),
    [
        pytest.param([], {}, [], id="nothing in the inventory"),
        pytest.param([replica("a", "up_to_date")], {}, [], id="all up to date"),
        pytest.param([replica("a")], {}, [["a"]], id="one replica may go down where it is the only one"),
        pytest.param([replica("a"), replica("b")], {}, [["a"], ["b"]], id="two: one, then the other"),
        pytest.param(DUE8, {}, [["a"], ["b", "c"], ["d", "e"], ["f", "g"], ["h"]], id="a quarter at a time"),
        pytest.param(DUE8, {"wave_size": 3}, [["a"], ["b", "c", "d"], ["e", "f", "g"], ["h"]], id="three at a time"),
        pytest.param(DUE8[:4], {"wave_size": "10%"}, [["a"], ["b"], ["c"], ["d"]], id="a percentage is at least one"),
        pytest.param(DUE8[:4], {"canary": 2, "wave_size": 2}, [["a", "b"], ["c", "d"]], id="a canary of two"),
        pytest.param(DUE8[:4], {"wave_size": 4, "capacity_floor": 2}, [["a"], ["b", "c"], ["d"]], id="the floor cuts"),
        pytest.param(DUE8[:4], {"canary": 4, "capacity_floor": "75%"}, [["a"], ["b"], ["c"], ["d"]], id="and canaries"),
        pytest.param(DUE8[:3], {"order": ("c", "b")}, [["c"], ["b"], ["a"]], id="the operator's order"),
        pytest.param(
            [replica("a", serving=False), replica("b", serving=False), replica("c", serving=False, zone="z")],
            {},
            [["a", "b", "c"]],
            id="a fresh cluster comes up at once",
        ),
        pytest.param(
            [replica("a"), replica("b", "half_done", serving=False), replica("c")],
            {"order": ("c",)},
            [["b"], ["c"], ["a"]],
            id="half-done first, whatever the order",
        ),
        pytest.param(
            [replica("a"), replica("b", serving=False)], {}, [["b"], ["a"]], id="who doesn't serve is the better canary"
        ),
        pytest.param(
            [replica("a", "half_done"), replica("b", serving=False)],
            {"capacity_floor": 1},
            [["b"], ["a"]],
            id="a replica at rest makes room for a half-done one that serves",
        ),
        pytest.param(
            [replica("a", zone="x"), replica("b", zone="y"), replica("c", zone="x"), replica("d", zone="y")],
            {"wave_size": 2},
            [["a"], ["b", "d"], ["c"]],
            id="zones are not mixed",
        ),
        pytest.param(
            [replica("a"), replica("b", "quarantined", serving=False), replica("c")],
            {},
            [["a"], ["c"]],
            id="quarantined is left",
        ),
        pytest.param(
            [replica("a"), replica("b", "quarantined", serving=False), replica("c", "half_done", serving=False)],
            {"include_quarantined": True},
            [["c"], ["b"], ["a"]],
            id="quarantined is taken when asked for",
        ),
        pytest.param(
            [replica("a", serving=False), replica("b", "quarantined", serving=False), replica("c")],
            {"include_quarantined": True},
            [["b"], ["a"], ["c"]],
            id="and before those that are due",
        ),
    ],
)
def test_waves(replicas: list[ReplicaNeed], policy: dict[str, object], desired: list[list[str]]) -> None:
    assert shape(waves(replicas, policy_of(policy), NOON)) == desired


RACKS = [in_domain("a", "x.1"), in_domain("b", "y.1"), in_domain("c", "x.1"), in_domain("d", "y.1")]


@pytest.mark.parametrize(
    ("replicas", "policy", "desired"),
    [
        pytest.param(RACKS, {"capacity_floor": 1}, [["a", "c"], ["b", "d"]], id="a domain a wave, beyond any size"),
        pytest.param(
            [*RACKS, replica("e"), replica("f")],
            {"capacity_floor": 1, "wave_size": 3},
            [["a", "c"], ["b", "d", "e"], ["f"]],
            id="others fill a wave up",
        ),
        pytest.param(
            [in_domain("a", "x.1"), in_domain("b", "y.1"), in_domain("c", "x.1", "y.1"), replica("d")],
            {"capacity_floor": 1},
            [["a", "b", "c"], ["d"]],
            id="a replica in two domains joins them",
        ),
        pytest.param(
            [replica("d"), in_domain("a", "x.1"), in_domain("c", "x.1"), replica("e")],
            {"capacity_floor": 1, "canary": 2},
            [["d", "e"], ["a", "c"]],
            id="who is alone goes past one that is too large",
        ),
        pytest.param([in_domain("a", "x.1"), in_domain("b", "x.2")], {}, [["a"], ["b"]], id="cliques are apart"),
        pytest.param(
            [in_domain("a", "x.1", zone="p"), in_domain("b", "x.1", zone="q"), replica("c")],
            {},
            [["a", "b"], ["c"]],
            id="over what zones say",
        ),
        pytest.param(
            [in_domain("a", "x.1", zone="p"), in_domain("b", "x.1", zone="q"), replica("c", zone="q")],
            {"canary": 3, "capacity_floor": 0},
            [["a", "b"], ["c"]],
            id="in the zone of its first",
        ),
        pytest.param(
            [replica("c", zone="p"), in_domain("a", "x.1", zone="q"), in_domain("b", "x.1", zone="p")],
            {"canary": 3, "capacity_floor": 0},
            [["c"], ["a", "b"]],
            id="not in that of its last",
        ),
        pytest.param(
            [
                replica("h", "half_done", serving=False),
                in_domain("c", "x.1", need="half_done", serving=False),
                in_domain("a", "x.1"),
            ],
            {"canary": 3, "capacity_floor": 0},
            [["h", "c", "a"]],
            id="as early as its first",
        ),
        pytest.param(
            [in_domain("c", "x.1", need="half_done", serving=False), in_domain("a", "x.1"), replica("d")],
            {"canary": 3, "capacity_floor": 0},
            [["c", "a"], ["d"]],
            id="before what is only due",
        ),
        pytest.param(
            [in_domain("a", "x.1"), replica("b", "up_to_date"), in_domain("c", "x.1", need="half_done", serving=False)],
            {},
            [["c", "a"]],
            id="with what was begun",
        ),
        pytest.param(
            [in_domain("a", "x.1"), in_domain("c", "x.1", need="quarantined", serving=False), replica("b")],
            {},
            [["a"], ["b"]],
            id="without who is in quarantine",
        ),
        pytest.param(
            [in_domain("a", "x.1"), in_domain("b", "x.1"), replica("c", serving=False)],
            {"capacity_floor": 1},
            [["c"], ["a", "b"]],
            id="once there is room",
        ),
    ],
)
def test_one_nvlink_domain_goes_in_one_wave(
    replicas: list[ReplicaNeed], policy: dict[str, object], desired: list[list[str]]
) -> None:
    assert shape(waves(replicas, policy_of(policy), NOON)) == desired


def test_a_wave_says_why_others_are_taken_with_a_replica() -> None:
    plan = waves(RACKS, policy_of({"capacity_floor": 1}), NOON)
    assert isinstance(plan, WavePlan)
    assert plan.waves[0].reasons["a1"] == ("due", "together with c: one NVLink domain (x.1)")


@pytest.mark.parametrize(
    ("replicas", "policy", "limit", "reason"),
    [
        pytest.param(
            [in_domain("a", "x.1"), in_domain("b", "x.1")], {}, None,
            "a, b are in one NVLink domain (x.1) and change their driver in one wave: 0 of 2 replicas would serve meanwhile "
            "and 1 must keep serving (by default). Allow a lower rollout_capacity_floor", id="the whole cluster",
        ),
        pytest.param(
            [*RACKS, replica("e")], {"capacity_floor": "80%"}, None,
            "3 of 5 replicas would serve meanwhile and 4 must keep serving (rollout_capacity_floor=80%)", id="a share",
        ),
        pytest.param(
            RACKS, {"capacity_floor": 1}, ["a"],
            "a, c are in one NVLink domain (x.1) and change their driver together, and this run leaves out c: outside of "
            "--limit. Name all of them, or none", id="--limit cuts it",
        ),
        pytest.param(
            [*RACKS[:2], in_domain("c", "x.1", serving=False)], {"capacity_floor": 1, "leave_serving": True}, None,
            "leaves out a: serving (rollout_leave_serving)", id="who serves is to be left",
        ),
        pytest.param(
            [in_domain("a", "x.1", serving=False), in_domain("b", "x.1"), in_domain("c", "x.1")], {"leave_serving": True},
            ["a", "b"], "leaves out b, c: serving (rollout_leave_serving)", id="the first one's reason",
        ),
        pytest.param(
            [in_domain("a", "x.1"), in_domain("b", "x.1")], {"capacity_floor": 2}, None,
            "a, b cannot be drained: 2 of 2 replicas would serve and 2 must keep serving", id="nobody can be drained",
        ),
    ],
)  # fmt: skip
def test_a_plan_that_would_part_an_nvlink_domain_is_refused(
    replicas: list[ReplicaNeed], policy: dict[str, object], limit: list[str] | None, reason: str
) -> None:
    refused = waves(replicas, policy_of(policy), NOON, limit)
    assert isinstance(refused, Refusals)
    assert reason in refused.reasons[0]


@pytest.mark.parametrize(
    ("replicas", "policy", "reason"),
    [
        pytest.param(DUE8[:2], {"capacity_floor": 2}, "a, b cannot be drained: 2 of 2 replicas would serve", id="all"),
        pytest.param(
            DUE8[:4], {"capacity_floor": "76%"}, "4 must keep serving (rollout_capacity_floor=76%)", id="rounded up"
        ),
        pytest.param(
            [replica("a"), replica("b", "quarantined", serving=False)],
            {},
            "a cannot be drained: 1 of 2 replicas would serve and 1 must keep serving (by default)",
            id="the last one that serves",
        ),
        pytest.param(DUE8[:2], {"wave_size": 0}, "wave_size is 0", id="an empty wave"),
        pytest.param(DUE8[:2], {"wave_size": "0%"}, "wave_size is 0%", id="no percentage"),
        pytest.param(DUE8[:2], {"wave_size": "150%"}, "wave_size is 150%", id="more than all"),
        pytest.param(DUE8[:2], {"capacity_floor": -1}, "capacity_floor is -1", id="negative floor"),
        pytest.param(DUE8[:2], {"canary": 0}, "canary is 0", id="no canary"),
        pytest.param(DUE8[:2], {"bake_seconds": -1.0}, "bake_seconds is -1.0", id="negative bake"),
        pytest.param(DUE8[:2], {"pause_between": float("inf")}, "pause_between is inf", id="for ever"),
        pytest.param(DUE8[:2], {"order": ("z",)}, "rollout_order names 'z'", id="order with an unknown replica"),
        pytest.param(DUE8[:2], {"order": ("a", "a")}, "rollout_order names 'a' twice", id="order with a replica twice"),
        pytest.param(
            DUE8[:2], {"window": "14:30-16:00"}, "opens in 2 h 30 min, and a, b would be drained", id="window"
        ),
    ],
)
def test_refusals(replicas: list[ReplicaNeed], policy: dict[str, object], reason: str) -> None:
    result = waves(replicas, policy_of(policy), NOON)
    assert isinstance(result, Refusals)
    assert reason in "\n".join(result.reasons)


def test_a_closed_window_keeps_nobody_from_finishing_what_does_not_serve() -> None:
    policy = Policy(window=Window.parse("02:00-04:00"))
    assert shape(waves([replica("a", "half_done", serving=False), replica("b", "up_to_date")], policy, NOON)) == [["a"]]


def test_a_closed_window_is_no_refusal_where_nothing_is_due() -> None:
    assert shape(waves([replica("a", "up_to_date")], Policy(window=Window.parse("02:00-04:00")), NOON)) == []


def test_skipped_replicas_have_reasons() -> None:
    plan = waves(
        [replica("a", "up_to_date"), replica("b", "quarantined", serving=False), replica("c"), replica("d")],
        Policy(),
        NOON,
        limit={"a", "c"},
    )
    assert isinstance(plan, WavePlan)
    assert plan.skipped == {
        "a": Skip(SkipCode.UP_TO_DATE, "up to date"),
        "b": Skip(SkipCode.OUTSIDE_LIMIT, "outside of --limit"),
        "d": Skip(SkipCode.OUTSIDE_LIMIT, "outside of --limit"),
    }
    assert shape(plan) == [["c"]]


def test_a_quarantined_replica_is_named_with_its_reason() -> None:
    plan = waves(
        [
            ReplicaNeed("b", ("b1", "b2"), None, False, Need.QUARANTINED, {"b1": ("Xid 79",), "b2": ()}),
            ReplicaNeed("c", ("c1",), None, False, Need.QUARANTINED),
        ],
        Policy(),
        NOON,
    )
    assert isinstance(plan, WavePlan)
    assert plan.skipped == {
        "b": Skip(SkipCode.QUARANTINED, "quarantined (b1: Xid 79)"),
        "c": Skip(SkipCode.QUARANTINED, "quarantined (no reason recorded)"),
    }


@pytest.mark.parametrize(
    ("replicas", "canaries", "zones"),
    [
        pytest.param(
            [replica("a", zone="x"), replica("b", zone="y")], [True, False], ["x", "y"], id="the first of two"
        ),
        pytest.param([replica("a", zone="x")], [False], ["x"], id="nobody comes after it"),
        pytest.param(
            [replica("a", serving=False, zone="x"), replica("b", serving=False, zone="y")],
            [False],
            [None],
            id="at rest",
        ),
    ],
)
def test_canary_and_zone(replicas: list[ReplicaNeed], canaries: list[bool], zones: list[str | None]) -> None:
    plan = waves(replicas, Policy(), NOON)
    assert isinstance(plan, WavePlan)
    assert [(wave.canary, wave.zone) for wave in plan.waves] == list(zip(canaries, zones, strict=True))
    assert [wave.n for wave in plan.waves] == list(range(1, len(zones) + 1))


def test_a_wave_as_data() -> None:
    plan = waves([replica("a"), replica("b")], Policy(), NOON)
    assert isinstance(plan, WavePlan)
    assert as_json(plan.waves) == [
        {
            "n": 1,
            "replicas": ["a"],
            "hosts": ["a1", "a2"],
            "reasons": {"a1": ["due"]},
            "zone": None,
            "canary": True,
            "serving": ["b"],
            "drained": ["a"],
            "members": {"a": ["a1", "a2"]},
        },
        {
            "n": 2,
            "replicas": ["b"],
            "hosts": ["b1", "b2"],
            "reasons": {"b1": ["due"]},
            "zone": None,
            "canary": False,
            "serving": ["a"],
            "drained": ["b"],
            "members": {"b": ["b1", "b2"]},
        },
    ]


needs = st.sampled_from([need.value for need in Need])
clusters = st.lists(st.tuples(needs, st.booleans(), st.sampled_from([None, "x", "y"])), max_size=12).map(
    lambda rows: [replica(f"r{n}", need, serving, zone) for n, (need, serving, zone) in enumerate(rows)]
)
shares = st.builds(Share, st.integers(0, 6)) | st.builds(Share, st.integers(0, 100), st.just(True))
policies = st.builds(
    Policy,
    canary=st.integers(1, 4),
    wave_size=shares.filter(lambda share: share.within(least=1)),
    capacity_floor=st.none() | shares,
    order=st.permutations([f"r{n}" for n in range(12)]).map(lambda names: tuple(names[:3])),
    include_quarantined=st.booleans(),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine takes longer for an example
@given(clusters, policies)
def test_a_plan_keeps_the_policy_or_is_refused(cluster: list[ReplicaNeed], policy: Policy) -> None:
    names = {replica.name for replica in cluster}
    policy = dataclasses.replace(policy, order=tuple(name for name in policy.order if name in names))
    needs_change = {Need.HALF_DONE, Need.DUE} | ({Need.QUARANTINED} if policy.include_quarantined else set())
    desired = {replica.name for replica in cluster if replica.need in needs_change}
    result = waves(cluster, policy, NOON)
    by_name = {replica.name: replica for replica in cluster}
    serving = {replica.name for replica in cluster if replica.serving}
    floor = policy.floor(len(cluster))
    if isinstance(result, Refusals):
        assert any("must keep serving" in reason for reason in result.reasons)
        resting = {name for name in desired if not by_name[name].serving}
        assert desired - resting, "replicas that don't serve are never refused"
        assert len(serving | resting) <= floor, "the floor is really in the way"
        return
    taken = [name for wave in result.waves for name in wave.replicas]
    assert sorted(taken) == sorted(desired), "every due replica exactly once"
    assert set(result.skipped) == names - desired
    if not serving:
        assert len(result.waves) <= 1
        return
    for n, wave in enumerate(result.waves, 1):
        assert wave.n == n
        assert wave.hosts == tuple(host for name in wave.replicas for host in by_name[name].hosts)
        assert 1 <= len(wave.replicas) <= (policy.canary if n == 1 else policy.size(len(cluster)))
        assert len({by_name[name].zone for name in wave.replicas}) == 1, "zones are not mixed"
        if serving & set(wave.replicas):
            assert len(serving - set(wave.replicas)) >= floor
        assert set(wave.serving) == serving - set(wave.replicas)
        serving |= set(wave.replicas)
    ranks = [by_name[name] for name in taken]
    for earlier, later in itertools.pairwise(ranks):
        if later.need is Need.HALF_DONE and earlier.need is not Need.HALF_DONE:
            assert later.serving, "only the floor holds a half-done replica back"
            assert not earlier.serving
