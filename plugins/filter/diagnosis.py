"""Filters for playbooks/diagnose.yml: they parse what its tasks registered; module_utils/gates/diagnosis.py decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core.systemd import RUNNING
from ansible_collections.lockstep.vllm.plugins.module_utils.core.typed import BadAnswer
from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import printable
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.known_issues import Match
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.record import EngineState
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import diagnosis
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.codes import Code
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult
from ansible_collections.lockstep.vllm.plugins.module_utils.host import answer as host_answer
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation

RANK_GATES = ("nccl", "graph")
"""In the order in which rank_group_verify gives them."""


def lockstep_diagnosis(hostvars: Mapping[str, Any], head: str) -> str:
    """The one-page verdict over the replica of ``head``, from what diagnose.yml registered as ``lockstep_seen_…``."""
    on_head = hostvars[head]
    state = _state(on_head)
    identity = host_answer.part(state, "host")
    found = {host: _findings(hostvars.get(host, {})) for host in identity.get("peers", {head: ""})}
    across = _gates(on_head, diagnosis.REPLICA_GATES, "_replica")
    reported = host_answer.part(state, "engine")
    engine = EngineState.parse(reported) if reported else None
    page = printable(diagnosis.page(identity.get("replica", "this replica"), found, across, engine, head))
    return Invocation.of_this_run().repeated(page)


def lockstep_engine_runs(hostvars: Mapping[str, Any], host: str) -> bool:
    """Whether the engine of this host's replica runs; a head that did not answer counts as one that does."""
    head = (host_answer.part(_state(hostvars[host]), "host").get("head") or {}).get("host", host)
    units = host_answer.part(_state(hostvars[head]) if head in hostvars else {}, "units")
    return not units or (units.get("lockstep-vllm.service") or {}).get("active") in RUNNING


def _state(seen: Mapping[str, Any]) -> Any:
    return (seen.get("lockstep_seen_state") or {}).get("state")


def _findings(seen: Mapping[str, Any]) -> diagnosis.HostFindings:
    state = _state(seen)
    quarantine = state.get("quarantine") if isinstance(state, Mapping) else None
    issues = (seen.get("lockstep_seen_driver") or {}).get("issues")
    return diagnosis.HostFindings(
        fingerprint=_fingerprint(state),
        gates=_gates(seen, diagnosis.OWN_GATES),
        issues=[issue for each in (issues if isinstance(issues, list) else ()) if (issue := _issue(each))],
        quarantined=str(host_answer.part(state, "quarantine").get("reason")) if quarantine else None,
    )


def _fingerprint(state: Any) -> Mapping[str, str | None]:
    """Empty, as of a host that did not answer, where it is none."""
    try:
        return host_answer.read(state).get("fingerprint", {})
    except BadAnswer:
        return {}


def _issue(given: Any) -> Match | None:
    fields = {field.name for field in dataclasses.fields(Match)}
    if not isinstance(given, Mapping) or {*given} != fields:
        return None
    texts: dict[str, Any] = {name: str(value) for name, value in given.items()}
    return Match(**texts)


def _gates(seen: Mapping[str, Any], names: Sequence[str], suffix: str = "") -> dict[str, GateResult]:
    """The results of the gates that ran: of a gate's own module, or of the ranks that ran several."""
    answers = {name: seen.get(f"lockstep_seen_{name}{suffix}") or {} for name in names if name not in RANK_GATES}
    answers |= _ranks(seen.get(f"lockstep_seen_ranks{suffix}") or {})
    found = {name: _gate(name, answers.get(name, {})) for name in names}
    return {name: result for name, result in found.items() if result}


def _ranks(answer: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The answers of the gates that the same ranks ran; the first one's is the module's where that itself failed."""
    results = answer.get("results")
    items = [item for item in (results if isinstance(results, list) else ()) if isinstance(item, Mapping)]
    found = dict(zip(RANK_GATES, items, strict=False))
    return found or {RANK_GATES[0]: answer}


def _gate(name: str, answer: Mapping[str, Any]) -> GateResult | None:
    """The gate's result; where the module itself failed, could_not_run; None where it did not run."""
    cause = str(answer.get("msg", "no message"))
    if answer.get("gate"):
        try:
            return GateResult.from_dict(answer["gate"])
        except (ValueError, OverflowError) as error:
            cause = f"its result cannot be used: {error}"
    elif not answer.get("failed"):
        return None
    return GateResult(
        name, "fail", 0.0, code=Code.COULD_NOT_RUN, cause=cause, next="ansible-playbook playbooks/verify.yml"
    )


class FilterModule:
    """The filters of diagnose.yml."""

    def filters(self) -> dict[str, Any]:
        return {"lockstep_diagnosis": lockstep_diagnosis, "lockstep_engine_runs": lockstep_engine_runs}
