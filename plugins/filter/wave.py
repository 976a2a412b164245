"""Filters for the wave play; the thinking is in module_utils/rollout (outcome, preconditions)."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.core.window import Window
from ansible_collections.lockstep.vllm.plugins.module_utils.host import answer as host_answer
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import outcome, preconditions, rollback_target
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Mode, Step


class Variables(TypedDict, total=False):
    """The variables of a host that the plays of a rollout set, as far as they are read here; a host's own words among them
    are checked where they are."""

    lockstep_wave: int
    lockstep_waves_total: int
    lockstep_replica: str
    lockstep_driver: Mapping[str, str]
    lockstep_steps: Sequence[str]
    lockstep_evidence: Mapping[str, object] | None
    lockstep_settings: Mapping[str, object] | None
    lockstep_window: str
    lockstep_floor: int
    lockstep_mode: str
    lockstep_serving: bool
    lockstep_disturbed: bool
    lockstep_failures: Sequence[Mapping[str, Any]]
    lockstep_stage_begun: Mapping[str, Any] | None
    lockstep_rollback_probe: Mapping[str, Any] | None


HostVars = Mapping[str, Variables]


def wave_sizes(hosts: Sequence[str], hostvars: HostVars) -> list[int]:
    """How many hosts each wave has, in order: what ``serial`` wants."""
    return outcome.sizes([int(hostvars[host]["lockstep_wave"]) for host in hosts])


def stage_failure(result: Mapping[str, Any], stage_file: str, rolling_back: bool, task: str) -> dict[str, Any]:
    """What a host keeps of a failed stage, from the ``result`` of the task that failed."""
    failure: dict[str, Any] = as_json(
        outcome.Failure.of_result(result, outcome.stage_of(str(stage_file)), rolling_back, task)
    )
    return failure


def wave_failures(
    hostvars: HostVars, members: Sequence[str], batch: Sequence[str], rolling_back: bool = False
) -> dict[str, dict[str, Any]]:
    """The failures of a wave, or of its rollback, over its planned members: one missing from the batch has failed."""
    failures: dict[str, dict[str, Any]] = as_json(_failures(hostvars, members, batch, rolling_back))
    return failures


def wave_runs_stage(
    hostvars: HostVars,
    stage_file: str,
    rolling_back: bool,
    host: str,
    members: Sequence[str],
    batch: Sequence[str],
) -> bool:
    """Whether ``host`` takes part in a stage: of the wave while nobody in it has failed; see outcome for its rollback."""
    if host not in members:  # the controller, which is in the batch to outlive it
        return False
    if not rolling_back:
        return not _failures(hostvars, members, batch, rolling_back=False)
    replica = hostvars[host]["lockstep_replica"]
    mates = [name for name in members if name != host and hostvars[name]["lockstep_replica"] == replica]
    failed = _failures(hostvars, mates, batch, rolling_back=True)
    itself = any(failure.rolling_back for failure in _kept(hostvars, host))
    return outcome.runs_rollback_stage(outcome.stage_of(str(stage_file)), itself, list(failed))


def wave_rolls_back(hostvars: HostVars, members: Sequence[str], batch: Sequence[str]) -> bool:
    """Whether any host of the wave has something to go back to: its last known good driver, or settings that were kept."""
    return bool(_back(hostvars, members, batch))


def quarantine_reason(hostvars: HostVars, host: str, members: Sequence[str], batch: Sequence[str]) -> str:
    """Why ``host`` must stay out once its failed wave was rolled back, for people; empty where it need not."""
    kept = _kept(hostvars, host)
    stays = outcome.stays_in_quarantine(kept, bool(_back(hostvars, members, batch)))
    return outcome.reasons(kept) if stays else ""


def wave_verdict(
    hostvars: HostVars, members: Sequence[str], batch: Sequence[str], host: str, folder: str = ""
) -> dict[str, str]:
    """Closing message of a run whose wave failed, as ``host`` has them: ``cause`` and ``next``."""
    mine = hostvars[host]
    failed, left = (_failures(hostvars, members, batch, rolling_back) for rolling_back in (False, True))
    where = (int(mine["lockstep_wave"]), int(mine["lockstep_waves_total"]))
    replica = hostvars[next(iter(failed), host) if host not in members else host]["lockstep_replica"]
    drivers = [hostvars[member]["lockstep_driver"]["version"] for member in members
               if Step.DRIVER in hostvars[member]["lockstep_steps"]]  # fmt: skip
    fetched = (hostvars[member].get("lockstep_evidence") or {} for member in members)
    folder = folder or next((str(each["folder"]) for each in fetched if each.get("folder")), "")
    verdict = outcome.verdict(failed, left, _back(hostvars, members, batch), where, replica, members, folder, drivers)
    return dataclasses.asdict(verdict)


def wave_unmet_precondition(hostvars: HostVars, members: Sequence[str], lock: Mapping[str, Any]) -> dict[str, str]:
    """Why the wave of ``members`` must not begin at this moment: ``cause`` and ``next``; empty where it may."""
    first = hostvars[members[0]]
    stop = preconditions.unmet(
        wave=(int(first["lockstep_wave"]), int(first["lockstep_waves_total"])),
        request=preconditions.Request.parse(lock["request"]),
        window=Window.parse(first["lockstep_window"]) if first["lockstep_window"] else None,
        now=datetime.datetime.now(datetime.UTC),
        drains=any(hostvars[host]["lockstep_serving"] and hostvars[host]["lockstep_disturbed"] for host in members),
        aborting=first["lockstep_mode"] == Mode.ABORT,
        capacity=preconditions.Capacity(int(first["lockstep_floor"]), lock["unready"], set(members)),
    )
    return dataclasses.asdict(stop) if stop else {}


def _kept(hostvars: HostVars, host: str) -> list[outcome.Failure]:
    """The failures that ``host`` keeps, in the order in which they came."""
    return [outcome.Failure.parse(each) for each in hostvars[host].get("lockstep_failures") or ()]


def _failures(
    hostvars: HostVars, members: Sequence[str], batch: Sequence[str], rolling_back: bool
) -> dict[str, outcome.Failure]:
    kept = {host: _kept(hostvars, host) for host in members}
    begun = {
        host: outcome.Begun.parse(last) for host in members if (last := hostvars[host].get("lockstep_stage_begun"))
    }
    return outcome.failures(members, set(batch), kept, rolling_back, begun)


def _back(hostvars: HostVars, members: Sequence[str], batch: Sequence[str]) -> rollback_target.Targets:
    """Host to what it is, or was, to be rolled back to."""
    targets = {}
    for host in members:
        probe = hostvars[host].get("lockstep_rollback_probe") or {}
        state = probe.get("state")
        seen = {"change": host_answer.part(state, "change"), "previous": host_answer.part_or_error(state, "previous")}
        restored = (hostvars[host].get("lockstep_settings") or {}).get("restored", "")
        targets[host] = rollback_target.target(cast(rollback_target.Probed, seen), f"{restored}")
    failed = [failure.stage for failure in _failures(hostvars, members, batch, rolling_back=False).values()]
    return rollback_target.targets(targets, failed)


class FilterModule:
    """Filters of the wave play."""

    def filters(self) -> dict[str, Any]:
        return {
            function.__name__: function
            for function in (
                quarantine_reason,
                stage_failure,
                wave_failures,
                wave_rolls_back,
                wave_runs_stage,
                wave_sizes,
                wave_unmet_precondition,
                wave_verdict,
            )
        }
