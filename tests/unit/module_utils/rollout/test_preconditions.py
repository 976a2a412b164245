"""What keeps a planned wave from beginning at this moment."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.window import Window
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.preconditions import (
    Capacity,
    Request,
    removal,
    unmet,
)

NOON = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
PAUSE = {"action": "pause", "by": "ada@ops1", "at": "2026-11-22T11:00:00Z", "reason": "traffic peak"}
ABORT = {**PAUSE, "action": "abort"}
NOT_STARTED = "wave 2 of 3 not started; no serving replica changed"


@pytest.mark.parametrize(
    ("record", "window", "drains", "aborting", "fragments"),
    [
        pytest.param(None, None, True, False, None, id="every precondition is met"),
        pytest.param(PAUSE, None, True, False, ["ada@ops1 asked to pause (traffic peak)", "action=resume"], id="pause"),
        pytest.param({**PAUSE, "reason": "", "by": None}, None, True, False, ["somebody asked to pause at 2026"], id="no reason"),
        pytest.param(ABORT, None, True, False, ["asked to abort", "-e rollout_action=abort"], id="abort"),
        pytest.param(ABORT, None, True, True, None, id="the abort that was asked for"),
        pytest.param(PAUSE, None, True, True, ["action=resume"], id="an abort can be paused too"),
        pytest.param(PAUSE, None, False, False, ["asked to pause"], id="a pause stops what drains nothing as well"),
        pytest.param({"action": "resume"}, None, True, False, None, id="no request that a roll heeds"),
        pytest.param({"error": "damaged"}, None, True, False, None, id="no request"),
        pytest.param(None, "11:00-13:00", True, False, None, id="within the window"),
        pytest.param(None, "02:00-04:00", True, False, ["02:00-04:00 UTC is closed", "12:00 UTC", "14 h 00 min",
                     "the same command", "it goes on with wave 2"],
                     id="the window is closed"),
        pytest.param(None, "02:00-04:00", False, False, None, id="a wave that drains nothing that serves"),
    ],
)  # fmt: skip
def test_requests_and_window(
    record: dict[str, str] | None, window: str | None, drains: bool, aborting: bool, fragments: list[str] | None
) -> None:
    reason = unmet((2, 3), Request.parse(record), Window.parse(window) if window else None, NOON, drains, aborting)
    if fragments is None:
        assert reason is None
    else:
        assert reason is not None
        for fragment in (*fragments, NOT_STARTED, "Next: "):
            assert fragment in str(reason)


@pytest.mark.parametrize(("record", "goes_on"), [(PAUSE, True), (ABORT, False)])
def test_only_a_pause_is_resumed(record: dict[str, str], goes_on: bool) -> None:
    """Of a run that is no abort, which is what a run is unless it says so."""
    stop = unmet((2, 3), Request.parse(record), None, NOON, drains=True)
    assert stop is not None
    assert ("Once it is resumed, run the same command again" in stop.cause) is goes_on


@pytest.mark.parametrize(
    ("floor", "unready", "taken", "fragments"),
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
    floor: int, unready: dict[str, str], taken: set[str], fragments: list[str] | None
) -> None:
    capacity = Capacity(floor, unready, taken)
    assert unmet((2, 3), None, None, NOON, drains=False, capacity=capacity) is None
    reason = unmet((2, 3), None, None, NOON, drains=True, capacity=capacity)
    if fragments is None:
        assert reason is None
    else:
        assert reason is not None
        for fragment in (
            *fragments,
            NOT_STARTED,
            "Next: ansible-playbook playbooks/status.yml",
            "it goes on with wave 2",
        ):
            assert fragment in str(reason)


ANYWAY = "ansible-playbook playbooks/remove.yml --limit rb -e rollout_capacity_floor="
STATUS = "ansible-playbook playbooks/status.yml"


@pytest.mark.parametrize(
    ("floor", "unready", "left", "says", "following"),
    [
        pytest.param(1, {"a1": "", "b1": ""}, None, "", "", id="another serves"),
        pytest.param(2, {"a1": "", "b1": "given_up"}, None, "", "", id="it does not serve, so that nobody is lost"),
        pytest.param(2, {"a1": "", "b1": ""}, 1, "Add a replica first", f"{ANYWAY}1", id="too few are left"),
        pytest.param(
            1, {"a1": "given_up", "b1": ""}, 0, f"Repair what does not serve first; to remove it all the same: {ANYWAY}0",
            STATUS, id="another could serve",
        ),
    ],
)  # fmt: skip
def test_removal(floor: int, unready: dict[str, str], left: int | None, says: str, following: str) -> None:
    stop = removal(("rb",), Capacity(floor, unready, {"b1", "b2"}))
    assert (stop is None) == (left is None)
    if stop:
        assert f"would leave {left}, and the capacity floor is {floor}; nothing was done. {says}" in stop.cause
        assert stop.next == following
