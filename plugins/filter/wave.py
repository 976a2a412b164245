"""Filters for the wave play; the thinking is in module_utils/rollout/outcome.py."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import outcome, waves


def wave_sizes(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> list[int]:
    """How many hosts each wave has, in order: what ``serial`` wants."""
    return outcome.sizes([int(hostvars[host]["lockstep_wave"]) for host in hosts])


def wave_trouble(
    hostvars: Mapping[str, Any], members: Sequence[str], batch: Sequence[str], kept_as: str = "lockstep_trouble"
) -> list[dict[str, Any]]:
    """What went wrong in a wave, over its planned members: one that is missing from the batch has failed.

    ``kept_as`` names the variable in which each host keeps its own failure: the wave's, or that of putting it back.
    """
    kept = {host: hostvars[host].get(kept_as) for host in members}
    return outcome.trouble(members, set(batch), kept)


def wave_goes_on_putting_back(
    hostvars: Mapping[str, Any], stage: str, host: str, members: Sequence[str], batch: Sequence[str]
) -> bool:
    """Whether ``host`` takes part in a stage of putting its wave back."""
    replica = hostvars[host]["lockstep_replica"]
    mates = [name for name in members if name != host and hostvars[name]["lockstep_replica"] == replica]
    troubled = wave_trouble(hostvars, mates, batch, "lockstep_restore_trouble")
    return outcome.goes_on_putting_back(
        stage, "lockstep_restore_trouble" in hostvars[host], [row["host"] for row in troubled]
    )


def wave_can_be_put_back(hostvars: Mapping[str, Any], members: Sequence[str]) -> bool:
    """Whether any host of the wave is amid a driver change with a verified driver to go back to."""
    return bool(_back(hostvars, members))


def wave_verdict(
    hostvars: Mapping[str, Any], members: Sequence[str], batch: Sequence[str], host: str, folder: str = ""
) -> str:
    """The last words of a run whose wave failed, as ``host`` says them."""
    mine = hostvars[host]
    left = wave_trouble(hostvars, members, batch, "lockstep_restore_trouble")
    where = (int(mine["lockstep_wave"]), int(mine["lockstep_waves_total"]))
    trouble = wave_trouble(hostvars, members, batch)
    return outcome.verdict(trouble, left, _back(hostvars, members), where, mine["lockstep_replica"], folder)


def _back(hostvars: Mapping[str, Any], members: Sequence[str]) -> dict[str, str]:
    """Host to the driver that it was verified on before the change that it is amid."""
    left = {host: hostvars[host].get("lockstep_left", {}).get("state", {}).get("change") or {} for host in members}
    origins = {host: (record.get("change") or {}).get("from") for host, record in left.items()}
    return {host: str(origin["version"]) for host, origin in origins.items() if origin}


def wave_hindrance(
    hostvars: Mapping[str, Any],
    members: Sequence[str],
    lock: Mapping[str, Any],
    window: str | None = None,
) -> str:
    """Why the wave of ``members`` must not begin at this moment, with the next command; empty where it may."""
    first = hostvars[members[0]]
    where = (int(first["lockstep_wave"]), int(first["lockstep_waves_total"]))
    now = datetime.datetime.now(datetime.UTC)
    drains = any(hostvars[host]["lockstep_serving"] and hostvars[host]["lockstep_disturbed"] for host in members)
    aborting = first["lockstep_mode"] == "abort"
    capacity = waves.Capacity(int(first["lockstep_floor"]), lock["unready"], set(members))
    return waves.hindrance(where, lock["request"], window or None, now, drains, aborting, capacity) or ""


def fingerprints(hosts: Sequence[str], hostvars: Mapping[str, Any], registered: str) -> dict[str, str]:
    """Host to digest of its fingerprint, from the probe that each host registered as ``registered``."""
    return {host: hostvars[host][registered]["state"]["fingerprint_digest"] for host in hosts}


class FilterModule:
    """Filters of the wave play."""

    def filters(self) -> dict[str, Any]:
        return {
            "failure": outcome.failure,
            "fingerprints": fingerprints,
            "reasons": outcome.reasons,
            "wave_can_be_put_back": wave_can_be_put_back,
            "wave_goes_on_putting_back": wave_goes_on_putting_back,
            "wave_hindrance": wave_hindrance,
            "wave_sizes": wave_sizes,
            "wave_trouble": wave_trouble,
            "wave_verdict": wave_verdict,
        }
