from __future__ import annotations

import dataclasses
import datetime
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.waves import (
    Capacity,
    Policy,
    Refusals,
    ReplicaNeed,
    WavePlan,
    floor_of,
    hindrance,
    minutes_until_open,
    size_of,
    waves,
    window_open,
)


def at(clock: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(f"2026-11-22T{clock}:00+00:00")


NOON = at("12:00")


def replica(name: str, need: str = "due", serving: bool = True, zone: str | None = None) -> ReplicaNeed:
    return ReplicaNeed(name, (f"{name}1", f"{name}2"), zone, serving, need, {f"{name}1": (need,)})  # type: ignore[arg-type]


def shape(plan: WavePlan | Refusals) -> list[list[str]]:
    assert isinstance(plan, WavePlan), plan
    return [list(wave.replicas) for wave in plan.waves]


DUE8 = [replica(name) for name in "abcdefgh"]


@pytest.mark.parametrize(
    ("replicas", "policy", "wanted"),
    [
        pytest.param([], {}, [], id="nothing in the inventory"),
        pytest.param([replica("a", "done")], {}, [], id="nothing to do"),
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
            id="half-done first, whatever the order says",
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
    ],
)
def test_waves(replicas: list[ReplicaNeed], policy: dict[str, object], wanted: list[list[str]]) -> None:
    assert shape(waves(replicas, Policy(**policy), NOON)) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("replicas", "policy", "said"),
    [
        pytest.param(DUE8[:2], {"capacity_floor": 2}, "a, b cannot be taken: 2 of 2 replicas would serve", id="all"),
        pytest.param(DUE8[:4], {"capacity_floor": "76%"}, "4 must keep serving (capacity_floor=76%)", id="rounded up"),
        pytest.param(
            [replica("a"), replica("b", "quarantined", serving=False)],
            {},
            "a cannot be taken: 1 of 2 replicas would serve and 1 must keep serving (by default)",
            id="the last one that serves",
        ),
        pytest.param(DUE8[:2], {"wave_size": 0}, "wave_size is 0", id="an empty wave"),
        pytest.param(DUE8[:2], {"wave_size": "0%"}, "wave_size is '0%'", id="no percentage"),
        pytest.param(DUE8[:2], {"wave_size": "150%"}, "wave_size is '150%'", id="more than all"),
        pytest.param(DUE8[:2], {"wave_size": "some"}, "wave_size is 'some'", id="no number"),
        pytest.param(DUE8[:2], {"capacity_floor": -1}, "capacity_floor is -1", id="negative floor"),
        pytest.param(DUE8[:2], {"canary": 0}, "canary is 0", id="no canary"),
        pytest.param(DUE8[:2], {"bake_seconds": -1.0}, "bake_seconds is -1.0", id="negative bake"),
        pytest.param(DUE8[:2], {"pause_between": float("inf")}, "pause_between is inf", id="for ever"),
        pytest.param(DUE8[:2], {"window": "25:00-26:00"}, "window is '25:00-26:00'", id="no such hour"),
        pytest.param(DUE8[:2], {"order": ("z",)}, "order names 'z'", id="order with a stranger"),
        pytest.param(DUE8[:2], {"order": ("a", "a")}, "order names 'a' twice", id="order with a twin"),
        pytest.param(DUE8[:2], {"window": "14:30-16:00"}, "opens in 2 h 30 min, and a, b would be taken", id="window"),
    ],
)
def test_refusals(replicas: list[ReplicaNeed], policy: dict[str, object], said: str) -> None:
    result = waves(replicas, Policy(**policy), NOON)  # type: ignore[arg-type]
    assert isinstance(result, Refusals)
    assert said in "\n".join(result.reasons)
    assert result.as_dict()["waves"] == []


def test_a_closed_window_keeps_nobody_from_finishing_what_does_not_serve() -> None:
    policy = Policy(window="02:00-04:00")
    assert shape(waves([replica("a", "half_done", serving=False), replica("b", "done")], policy, NOON)) == [["a"]]


def test_a_closed_window_is_no_refusal_where_nothing_is_due() -> None:
    assert shape(waves([replica("a", "done")], Policy(window="02:00-04:00"), NOON)) == []


def test_skipped_replicas_have_reasons() -> None:
    plan = waves(
        [replica("a", "done"), replica("b", "quarantined", serving=False), replica("c"), replica("d")],
        Policy(),
        NOON,
        limit={"a", "c"},
    )
    assert isinstance(plan, WavePlan)
    assert plan.skipped == {"a": "needs nothing", "b": "outside of --limit", "d": "outside of --limit"}
    assert shape(plan) == [["c"]]


def test_a_quarantined_replica_is_named_with_its_reason() -> None:
    plan = waves([ReplicaNeed("b", ("b1",), need="quarantined", reasons={"b1": ("Xid 79",)})], Policy(), NOON)
    assert isinstance(plan, WavePlan)
    assert plan.skipped == {"b": "quarantined (b1: Xid 79)"}


def test_a_wave_as_data() -> None:
    plan = waves([replica("a"), replica("b")], Policy(), NOON)
    assert isinstance(plan, WavePlan)
    assert plan.as_dict() == {
        "waves": [
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
        ],
        "skipped": {},
        "refusals": [],
    }


@pytest.mark.parametrize(
    ("window", "clock", "is_open", "minutes"),
    [
        ("02:00-04:00", "01:59", False, 1),
        ("02:00-04:00", "02:00", True, 0),
        ("02:00-04:00", "03:59", True, 0),
        ("02:00-04:00", "04:00", False, 22 * 60),
        ("22:00-04:00", "23:00", True, 0),
        ("22:00-04:00", "00:00", True, 0),
        ("22:00-04:00", "12:00", False, 600),
        ("06:00-06:00", "05:00", True, 0),
    ],
)
def test_window(window: str, clock: str, is_open: bool, minutes: int) -> None:
    assert (window_open(window, at(clock)), minutes_until_open(window, at(clock))) == (is_open, minutes)


def test_the_window_is_in_utc() -> None:
    elsewhere = datetime.datetime.fromisoformat("2026-11-22T04:30:00+02:00")
    assert window_open("02:00-04:00", elsewhere)


@pytest.mark.parametrize(
    ("values", "policy"),
    [
        ({}, Policy()),
        ({"wave_size": None, "window": ""}, Policy()),
        ({"wave_size": "3", "canary": "2", "capacity_floor": "50%"}, Policy(2, 3, "50%")),
        (
            {"order": "b, a", "bake_seconds": "60", "pause_between": 1},
            Policy(order=("b", "a"), bake_seconds=60, pause_between=1),
        ),
        ({"include_quarantined": "yes", "order": ["b"]}, Policy(order=("b",), include_quarantined=True)),
    ],
)
def test_policy_from_variables(values: dict[str, object], policy: Policy) -> None:
    assert Policy.from_mapping(values) == policy


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"wave": 1}, "no 'wave'"),
        ({"canary": "many"}, "canary is 'many', wanted a number of replicas"),
        ({"canary": True}, "canary is True"),
        ({"wave_size": 1.5}, "wave_size is 1.5"),
        ({"wave_size": "101%"}, "wave_size is '101%'"),
        ({"include_quarantined": "perhaps"}, "include_quarantined is 'perhaps'"),
        ({"canary": 0, "bake_seconds": -2}, "canary is 0, wanted 1 or more replicas\nrollout policy: bake_seconds"),
    ],
)
def test_policy_from_wrong_variables(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Policy.from_mapping(values)
    assert said in str(error.value)


needs = st.sampled_from(["done", "half_done", "due", "quarantined"])
clusters = st.lists(st.tuples(needs, st.booleans(), st.sampled_from([None, "x", "y"])), max_size=12).map(
    lambda rows: [replica(f"r{n}", need, serving, zone) for n, (need, serving, zone) in enumerate(rows)]
)
shares = st.integers(0, 6) | st.integers(0, 100).map(lambda percent: f"{percent}%")
policies = st.builds(
    Policy,
    canary=st.integers(1, 4),
    wave_size=shares.filter(lambda share: share not in (0, "0%")),
    capacity_floor=st.none() | shares,
    order=st.permutations([f"r{n}" for n in range(12)]).map(lambda names: tuple(names[:3])),
    include_quarantined=st.booleans(),
)


@given(clusters, policies)
def test_a_plan_keeps_the_policy_or_is_refused(cluster: list[ReplicaNeed], policy: Policy) -> None:
    names = {replica.name for replica in cluster}
    policy = dataclasses.replace(policy, order=tuple(name for name in policy.order if name in names))
    needs_change = {"half_done", "due"} | ({"quarantined"} if policy.include_quarantined else set())
    wanted = {replica.name for replica in cluster if replica.need in needs_change}
    result = waves(cluster, policy, NOON)
    by_name = {replica.name: replica for replica in cluster}
    serving = {replica.name for replica in cluster if replica.serving}
    floor = floor_of(policy, len(cluster))
    if isinstance(result, Refusals):
        assert any("must keep serving" in reason for reason in result.reasons)
        resting = {name for name in wanted if not by_name[name].serving}
        assert wanted - resting, "replicas that don't serve are never refused"
        assert len(serving | resting) <= floor, "the floor is really in the way"
        return
    taken = [name for wave in result.waves for name in wave.replicas]
    assert sorted(taken) == sorted(wanted), "every due replica exactly once"
    assert set(result.skipped) == names - wanted
    if not serving:
        assert len(result.waves) <= 1
        return
    for n, wave in enumerate(result.waves, 1):
        assert wave.n == n
        assert wave.hosts == tuple(host for name in wave.replicas for host in by_name[name].hosts)
        assert 1 <= len(wave.replicas) <= (policy.canary if n == 1 else size_of(policy, len(cluster)))
        assert len({by_name[name].zone for name in wave.replicas}) == 1, "zones are not mixed"
        if serving & set(wave.replicas):
            assert len(serving - set(wave.replicas)) >= floor
        assert set(wave.serving) == serving - set(wave.replicas)
        serving |= set(wave.replicas)
    ranks = [by_name[name] for name in taken]
    for earlier, later in itertools.pairwise(ranks):
        if later.need == "half_done" and earlier.need != "half_done":
            assert later.serving, "only the floor holds a half-done replica back"
            assert not earlier.serving


PAUSE = {"action": "pause", "by": "ada@ops1", "at": "2026-11-22T11:00:00Z", "reason": "traffic peak"}
ABORT = {**PAUSE, "action": "abort"}


@pytest.mark.parametrize(
    ("request_", "window", "drains", "aborting", "said"),
    [
        pytest.param(None, None, True, False, None, id="nothing hinders"),
        pytest.param(PAUSE, None, True, False, ["ada@ops1 asked to pause (traffic peak)", "2 of 3", "action=resume"], id="pause"),
        pytest.param(ABORT, None, True, False, ["asked to abort", "-e rollout_action=abort"], id="abort"),
        pytest.param(ABORT, None, True, True, None, id="the abort that was asked for"),
        pytest.param(PAUSE, None, True, True, ["action=resume"], id="an abort can be paused too"),
        pytest.param(None, "11:00-13:00", True, False, None, id="within the window"),
        pytest.param(None, "02:00-04:00", True, False, ["02:00-04:00 UTC is over", "12:00 UTC", "14 h 00 min", "the same command"],
                     id="the window is over"),
        pytest.param(None, "02:00-04:00", False, False, None, id="a wave that takes nothing that serves"),
    ],
)  # fmt: skip
def test_what_keeps_a_wave_from_beginning(
    request_: dict[str, str] | None, window: str | None, drains: bool, aborting: bool, said: list[str] | None
) -> None:
    noon = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
    reason = hindrance((2, 3), request_, window, noon, drains, aborting)
    if said is None:
        assert reason is None
    else:
        assert reason is not None
        assert "Next: " in reason
        for words in said:
            assert words in reason


@pytest.mark.parametrize(
    ("floor", "unready", "taken", "said"),
    [
        pytest.param(1, {"a1": "", "b1": ""}, {"b1"}, None, id="another serves"),
        pytest.param(1, {"a1": "no engine", "b1": ""}, {"b1"}, ["a1: no engine", "would leave 0", "floor is 1"], id="it fell over"),
        pytest.param(1, {"b1": ""}, {"b1"}, ["would leave 0"], id="the other was not asked"),
        pytest.param(1, {"a1": "", "b1": "starting"}, {"b1"}, None, id="the wave's own fell over: nothing is taken"),
        pytest.param(1, {"a1": "starting", "b1": "starting"}, {"b1"}, None, id="nobody serves"),
        pytest.param(0, {"a1": ""}, {"a1"}, None, id="no floor"),
        pytest.param(2, {"a1": "", "b1": "", "c1": ""}, {"a1", "a2"}, None, id="enough are left"),
        pytest.param(2, {"a1": "", "b1": "", "c1": ""}, {"a1", "b1"}, ["would leave 1", "floor is 2"], id="a wave of two"),
    ],
)  # fmt: skip
def test_the_floor_holds_at_the_moment_a_wave_begins(
    floor: int, unready: dict[str, str], taken: set[str], said: list[str] | None
) -> None:
    noon = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
    capacity = Capacity(floor, unready, taken)
    assert hindrance((2, 3), None, None, noon, drains=False, capacity=capacity) is None
    reason = hindrance((2, 3), None, None, noon, drains=True, capacity=capacity)
    if said is None:
        assert reason is None
    else:
        assert reason is not None
        for words in (*said, "wave 2 of 3 was not begun", "Next: ansible-playbook playbooks/status.yml"):
            assert words in reason


@pytest.mark.parametrize(
    ("name", "value"),
    [("bake_latency_factor", 0.5), ("bake_error_share", 2), ("bake_requests", 0), ("bake_requests", "few")],
)
def test_a_bake_that_means_nothing_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Policy.from_mapping({name: value})
