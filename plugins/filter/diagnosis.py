"""Filters for playbooks/diagnose.yml; the thinking is in module_utils/gates/diagnosis.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import diagnosis

RUNNING = ("active", "activating", "reloading")


def lockstep_diagnosis(hostvars: Mapping[str, Any], head: str) -> str:
    """The one-page verdict over the replica of ``head``, from what diagnose.yml registered as ``lockstep_seen_…``."""
    identity = hostvars[head]["lockstep_seen_state"]["state"].get("host") or {}
    found = {host: _findings(hostvars.get(host, {})) for host in identity.get("peers", {head: ""})}
    on_head = hostvars[head]
    across = {
        gate: result for gate in diagnosis.REPLICA_GATES if (result := _gate(on_head, f"lockstep_seen_{gate}_replica"))
    }
    state = on_head.get("lockstep_seen_state", {}).get("state", {})
    return diagnosis.page(identity.get("replica", "this replica"), found, across, state.get("engine"), head)


def lockstep_engine_runs(hostvars: Mapping[str, Any], host: str) -> bool:
    """Whether the engine of this host's replica runs; a head that did not answer counts as one that does."""
    state = hostvars[host]["lockstep_seen_state"]["state"]
    head = ((state.get("host") or {}).get("head") or {}).get("host", host)
    seen = hostvars[head].get("lockstep_seen_state", {}) if head in hostvars else {}
    units = seen.get("state", {}).get("units")
    return units is None or units.get("lockstep-vllm.service", {}).get("active") in RUNNING


def _findings(seen: Mapping[str, Any]) -> diagnosis.HostFindings:
    state = seen.get("lockstep_seen_state", {}).get("state", {})
    gates = {gate: result for gate in diagnosis.OWN_GATES if (result := _gate(seen, f"lockstep_seen_{gate}"))}
    return diagnosis.HostFindings(
        fingerprint=state.get("fingerprint", {}),
        gates=gates,
        issues=seen.get("lockstep_seen_driver", {}).get("issues", []),
        quarantine=state.get("quarantine"),
    )


def _gate(seen: Mapping[str, Any], registered: str) -> Mapping[str, Any] | None:
    """The gate's result; where the module itself failed, a failure that says so."""
    answer = seen.get(registered) or {}
    if answer.get("gate"):
        return dict(answer["gate"])
    if answer.get("failed"):
        name = registered.removeprefix("lockstep_seen_").removesuffix("_replica")
        return {
            "gate": name,
            "verdict": "fail",
            "code": "could_not_run",
            "host": None,
            "pair": None,
            "seconds": 0.0,
            "evidence": [],
            "cause": str(answer.get("msg", "no message")),
            "next": "ansible-playbook playbooks/verify.yml",
        }
    return None


class FilterModule:
    """The filters of diagnose.yml."""

    def filters(self) -> dict[str, Any]:
        return {"lockstep_diagnosis": lockstep_diagnosis, "lockstep_engine_runs": lockstep_engine_runs}
