"""Filters for the wave play; the thinking is in module_utils/wave_outcome.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils import wave_outcome


def wave_sizes(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> list[int]:
    """How many hosts each wave has, in order: what ``serial`` wants."""
    return wave_outcome.sizes([int(hostvars[host]["lockstep_wave"]) for host in hosts])


def wave_trouble(
    hostvars: Mapping[str, Any], members: Sequence[str], batch: Sequence[str], kept_as: str = "lockstep_trouble"
) -> list[dict[str, Any]]:
    """What went wrong in a wave, over its planned members: one that is missing from the batch has failed.

    ``kept_as`` names the variable in which each host keeps its own failure: the wave's, or that of putting it back.
    """
    kept = {host: hostvars[host].get(kept_as) for host in members}
    return wave_outcome.trouble(members, set(batch), kept)


def wave_can_be_put_back(hostvars: Mapping[str, Any], members: Sequence[str]) -> bool:
    """Whether any host of the wave is amid a driver change with a verified driver to go back to."""
    left = [hostvars[host].get("lockstep_left", {}).get("state", {}).get("change") or {} for host in members]
    return any((change.get("change") or {}).get("from") for change in left)


def fingerprints(hosts: Sequence[str], hostvars: Mapping[str, Any], registered: str) -> dict[str, str]:
    """Host to digest of its fingerprint, from the probe that each host registered as ``registered``."""
    return {host: hostvars[host][registered]["state"]["fingerprint_digest"] for host in hosts}


class FilterModule:
    """Filters of the wave play."""

    def filters(self) -> dict[str, Any]:
        return {
            "failure": wave_outcome.failure,
            "fingerprints": fingerprints,
            "reasons": wave_outcome.reasons,
            "wave_can_be_put_back": wave_can_be_put_back,
            "wave_sizes": wave_sizes,
            "wave_trouble": wave_trouble,
            "wave_verdict": wave_outcome.verdict,
        }
