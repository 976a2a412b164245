"""Filters for playbooks/diagnose.yml: they parse what its tasks registered; module_utils/gates/diagnosis.py decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.driver.known_issues import Match
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import diagnosis
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.codes import Code
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation

RUNNING = ("active", "activating", "reloading")


def lockstep_diagnosis(hostvars: Mapping[str, Any], head: str) -> str:
    """The one-page verdict over the replica of ``head``, from what diagnose.yml registered as ``lockstep_seen_…``."""
    identity = hostvars[head]["lockstep_seen_state"]["state"].get("host") or {}
    found = {host: _findings(hostvars.get(host, {})) for host in identity.get("peers", {head: ""})}
    on_head = hostvars[head]
    across = _gates(on_head, diagnosis.REPLICA_GATES, "_replica")
    state = on_head.get("lockstep_seen_state", {}).get("state", {})
    page = diagnosis.page(identity.get("replica", "this replica"), found, across, state.get("engine"), head)
    return Invocation.of_this_run().repeated(page)


def lockstep_engine_runs(hostvars: Mapping[str, Any], host: str) -> bool:
    """Whether the engine of this host's replica runs; a head that did not answer counts as one that does."""
    state = hostvars[host]["lockstep_seen_state"]["state"]
    head = ((state.get("host") or {}).get("head") or {}).get("host", host)
    seen = hostvars[head].get("lockstep_seen_state", {}) if head in hostvars else {}
    units = seen.get("state", {}).get("units")
    return units is None or units.get("lockstep-vllm.service", {}).get("active") in RUNNING


def _findings(seen: Mapping[str, Any]) -> diagnosis.HostFindings:
    state = seen.get("lockstep_seen_state", {}).get("state", {})
    quarantine = state.get("quarantine")
    return diagnosis.HostFindings(
        fingerprint=state.get("fingerprint", {}),
        gates=_gates(seen, diagnosis.OWN_GATES),
        issues=[Match(**issue) for issue in seen.get("lockstep_seen_driver", {}).get("issues", [])],
        quarantined=str(quarantine.get("reason")) if quarantine else None,
    )


def _gates(seen: Mapping[str, Any], names: Sequence[str], suffix: str = "") -> dict[str, GateResult]:
    """The results of the gates that ran."""
    found = {name: _gate(name, seen.get(f"lockstep_seen_{name}{suffix}") or {}) for name in names}
    return {name: result for name, result in found.items() if result}


def _gate(name: str, answer: Mapping[str, Any]) -> GateResult | None:
    """The gate's result; where the module itself failed, could_not_run; None where it did not run."""
    if answer.get("gate"):
        return GateResult.from_dict(answer["gate"])
    if not answer.get("failed"):
        return None
    return GateResult(
        name,
        "fail",
        0.0,
        code=Code.COULD_NOT_RUN,
        cause=str(answer.get("msg", "no message")),
        next="ansible-playbook playbooks/verify.yml",
    )


class FilterModule:
    """The filters of diagnose.yml."""

    def filters(self) -> dict[str, Any]:
        return {"lockstep_diagnosis": lockstep_diagnosis, "lockstep_engine_runs": lockstep_engine_runs}
