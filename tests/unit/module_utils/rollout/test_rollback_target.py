"""What each host of a failed wave is taken back to, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.filter import wave as filters
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.outcome import Failure
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.rollback_target import (
    RollbackTarget,
    target,
    targets,
)
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Stage

CHANGE = {"change": {"from": {"version": "550.90.07"}, "to": {"version": "550.127.05"}, "began": "t"}}
FIRST = {"change": {"from": None, "to": {"version": "550.127.05"}, "began": "t"}}
KEPT = {"run": "r", "at": "t", "roles": ["vllm_server"], "runtime": None}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param({}, RollbackTarget(), id="no probe"),
        pytest.param({"change": None, "previous": None}, RollbackTarget(), id="nothing was changed"),
        pytest.param({"change": FIRST, "previous": None}, RollbackTarget(), id="first driver of this host"),
        pytest.param({"change": CHANGE, "previous": None}, RollbackTarget("550.90.07"), id="driver"),
        pytest.param({"change": None, "previous": KEPT}, RollbackTarget(settings=True), id="settings"),
        pytest.param({"change": CHANGE, "previous": KEPT}, RollbackTarget("550.90.07", True), id="both"),
        pytest.param({"previous": {"error": "no JSON"}}, RollbackTarget(settings=True), id="settings, record damaged"),
    ],
)
def test_target(state: dict[str, Any], expected: RollbackTarget) -> None:
    assert target(state) == expected
    assert bool(target(state)) == (expected != RollbackTarget())


@pytest.mark.parametrize(
    ("failed_in", "rolled_back"),
    [
        pytest.param([Stage.APPLY], ["a2"], id="changed"),
        pytest.param([Stage.KEEP_SETTINGS], [], id="not kept on one: nothing was changed on any"),
        pytest.param([Stage.KEEP_SETTINGS, Stage.KEEP_SETTINGS], [], id="kept on none"),
        pytest.param([Stage.CHECK_PACKAGES], [], id="its packages refuse the driver"),
        pytest.param([Stage.UNKNOWN], [], id="a host was lost before the first stage"),
        pytest.param([Stage.UNKNOWN, Stage.APPLY], ["a2"], id="changed on another"),
    ],
)
def test_what_serves_is_left_alone_where_nothing_was_changed(failed_in: list[Stage], rolled_back: list[str]) -> None:
    of_host = {"a1": RollbackTarget(), "a2": RollbackTarget(settings=True)}
    assert list(targets(of_host, failed_in)) == rolled_back


@pytest.mark.parametrize("stage", [Stage.BAKE, Stage.START_ENGINE, Stage.REPLICA_GATES, Stage.APPLY])
def test_a_wave_that_changed_no_driver_is_rolled_back(stage: Stage) -> None:
    """As the playbook asks it: from the probe before the rollback, and what the restoration then returns."""
    mine: dict[str, Any] = {
        "lockstep_replica": "replica_a",
        "lockstep_steps": ["serve"],
        "lockstep_wave": 1,
        "lockstep_waves_total": 2,
        "lockstep_failures": [as_json(Failure(stage, False, "task", "msg"))],
        "lockstep_rollback_probe": {"state": {"change": None, "previous": KEPT}},
    }
    assert filters.wave_rolls_back({"a1": mine}, ["a1"], ["a1"])
    assert filters.quarantine_reason({"a1": mine}, "a1", ["a1"], ["a1"]) == ""
    mine["lockstep_settings"] = {"restored": "serving environment 9f8e -> 1a2b; vLLM (args.max_num_seqs)"}
    verdict = filters.wave_verdict({"a1": mine}, ["a1"], ["a1"], "a1")
    assert "Rolled back; it passed its gates again and serves as before." in verdict["cause"]
    assert "a1, taken back: serving environment 9f8e -> 1a2b; vLLM (args.max_num_seqs)" in verdict["cause"]
    assert verdict["next"].startswith("ansible-playbook site.yml --limit replica_a")


@pytest.mark.parametrize("previous", [{"error": "no JSON"}, {"settings": 7}, "text"])
def test_settings_whose_record_is_damaged_are_rolled_back_too(previous: Any) -> None:
    """So that restoring them fails with the reason, and the host stays out."""
    mine: dict[str, Any] = {
        "lockstep_replica": "replica_a",
        "lockstep_failures": [as_json(Failure(Stage.APPLY, False, "task", "msg"))],
        "lockstep_rollback_probe": {"state": {"change": None, "previous": previous}},
    }
    assert filters.wave_rolls_back({"a1": mine}, ["a1"], ["a1"])
