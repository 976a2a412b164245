"""The driver change record, through everything that can stop it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import change_record
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.change_record import NothingToRestore, NotRunning


def driver(version: str) -> dict[str, Any]:
    return {"version": version, "source": "nvidia", "flavor": "open"}


A, B, C = driver("550.90.07"), driver("550.127.05"), driver("580.95.05")
ON_A = {"verified": {**A, "at": "t0"}, "change": None, "roll": None}


def test_a_change_remembers_what_was_verified() -> None:
    record = change_record.begin(ON_A, B, "t1")
    assert change_record.restore_target(record) == {**A, "at": "t0"}
    assert change_record.expected(record) == B


def test_beginning_again_after_a_crash_changes_nothing() -> None:
    record = change_record.begin(ON_A, B, "t1")
    assert change_record.begin(record, B, "t2") == record


def test_a_change_keeps_what_it_found_first() -> None:
    first: change_record.Before = {"packages": {"libcuda1": "550.90.07-1"}, "preferences": "pins"}
    then: change_record.Before = {"packages": {}, "preferences": None}
    begun = change_record.begin(ON_A, B, "t1", first)
    for again in (B, C, A):
        assert change_record.found_before(change_record.begin(begun, again, "t2", then)) == first
    assert change_record.found_before(change_record.begin(ON_A, B, "t1")) is None
    assert change_record.found_before(change_record.accept(begun, B, "550.127.05", "t2")) is None


def test_another_target_keeps_the_first_origin() -> None:
    record = change_record.begin(change_record.begin(ON_A, B, "t1"), C, "t2")
    assert change_record.restore_target(record)["version"] == "550.90.07"
    assert record["change"]["to"] == C


def test_a_restore_that_was_cut_short_still_leads_to_the_origin() -> None:
    record = change_record.begin(change_record.begin(ON_A, B, "t1"), A, "t2")
    assert change_record.restore_target(record)["version"] == "550.90.07"
    assert change_record.expected(record) == A


def test_reinstalling_the_verified_driver_is_no_change() -> None:
    assert change_record.begin(ON_A, A, "t1") == ON_A


def test_accepting_ends_the_change() -> None:
    record = change_record.accept(change_record.begin(ON_A, B, "t1"), B, "550.127.05", "t2")
    assert record == {"verified": {**B, "at": "t2"}, "change": None, "roll": {"from": ON_A["verified"], "over": None}}


def test_after_a_restore_the_origin_is_accepted_whatever_is_declared() -> None:
    restored = change_record.begin(change_record.begin(ON_A, B, "t1"), A, "t2")
    assert change_record.accept(restored, B, "550.90.07", "t3") == ON_A


def test_the_first_driver_of_a_host() -> None:
    record = change_record.begin(None, A, "t1")
    with pytest.raises(NothingToRestore, match="this host's first"):
        change_record.restore_target(record)
    assert change_record.accept(record, A, "550.90.07", "t2") == {
        "verified": {**A, "at": "t2"},
        "change": None,
        "roll": None,
    }


def test_a_host_that_came_with_its_driver() -> None:
    assert change_record.accept(None, A, "550.90.07", "t1") == {
        "verified": {**A, "at": "t1"},
        "change": None,
        "roll": None,
    }


def test_accepting_twice_keeps_the_date() -> None:
    assert change_record.accept(ON_A, A, "550.90.07", "t9") == ON_A


@pytest.mark.parametrize("loaded", [None, "550.90.07"])
def test_what_does_not_run_is_not_accepted(loaded: str | None) -> None:
    with pytest.raises(NotRunning, match=r"550\.127\.05 cannot be accepted"):
        change_record.accept(change_record.begin(ON_A, B, "t1"), B, loaded, "t2")


@pytest.mark.parametrize("record", [None, ON_A])
def test_nothing_to_restore_without_a_change(record: dict[str, Any] | None) -> None:
    with pytest.raises(NothingToRestore, match="no driver change is in progress"):
        change_record.restore_target(record)


@pytest.mark.parametrize(("record", "expected"), [(None, None), (ON_A, {**A, "at": "t0"})])
def test_expected(record: dict[str, Any] | None, expected: dict[str, Any] | None) -> None:
    assert change_record.expected(record) == expected


def rolled(*steps: str) -> dict[str, Any]:
    """A record that went through ``begin X``, ``accept`` and ``complete``."""
    record: dict[str, Any] = ON_A
    for n, step in enumerate(steps):
        verb, _space, letter = step.partition(" ")
        moment = f"t{n + 1}"
        if verb == "begin":
            record = change_record.begin(record, {"A": A, "B": B, "C": C}[letter], moment)
        elif verb == "accept":
            record = change_record.accept(record, A, record["change"]["to"]["version"], moment)
        else:
            record = change_record.complete(record, moment)
    return record


@pytest.mark.parametrize(
    ("steps", "back"),
    [
        pytest.param([], None, id="never changed"),
        pytest.param(["begin B"], A, id="half changed"),
        pytest.param(["begin B", "accept"], A, id="changed, the roll goes on"),
        pytest.param(["begin B", "accept", "complete"], None, id="the roll is over"),
        pytest.param(["begin B", "begin A"], A, id="being rolled back"),
        pytest.param(["begin B", "begin A", "accept"], None, id="was rolled back"),
        pytest.param(["begin B", "accept", "begin A"], A, id="being given up"),
        pytest.param(["begin B", "accept", "begin A", "accept"], None, id="given up"),
        pytest.param(["begin B", "accept", "begin A", "begin B", "accept"], A, id="giving up failed"),
        pytest.param(["begin B", "accept", "begin C", "accept"], A, id="another target before the roll was over"),
        pytest.param(["begin B", "accept", "complete", "begin C"], B, id="the next roll"),
        pytest.param(["begin B", "complete"], A, id="a change in progress keeps its roll open"),
    ],
)
def test_what_giving_up_the_roll_leads_to(steps: list[str], back: dict[str, Any] | None) -> None:
    record = rolled(*steps)
    assert change_record.before_roll(record) == back
    if back:
        assert change_record.has_open_roll(record)


def test_a_record_from_before_rolls_were_remembered() -> None:
    old = {"verified": {**A, "at": "t0"}, "change": {"from": {**A, "at": "t0"}, "to": B, "began": "t1"}}
    assert change_record.before_roll(old) == A
    assert change_record.before_roll({"verified": A, "change": None}) is None


def test_the_first_driver_has_nothing_before_it() -> None:
    assert change_record.before_roll(change_record.begin(None, A, "t1")) is None


@pytest.mark.parametrize(("steps", "other"), [([], False), (["begin B"], True), (["begin B", "begin A"], False)])
def test_a_change_that_touched_no_package_has_to_be_turned_too(steps: list[str], other: bool) -> None:
    assert change_record.is_changing_to_another(rolled(*steps), A) == other
