"""Stage, verify and prune models in short calls of the module, showing between them how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.model.codes import Result
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.waiting_action import WaitingAction

STAGE, PRUNE = "ansible-playbook playbooks/stage_model.yml", "ansible-playbook playbooks/prune_models.yml --check"


class ActionModule(WaitingAction):
    """The module, called again until its unit has ended, or the deadline."""

    MODULE = "lockstep.vllm.model"
    REPEATS = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        self._host = (task_vars or {})["inventory_hostname"]
        result = super().run(tmp, task_vars)
        if self._task.args.get("verb") == "warm":
            return as_told(self._host, result)
        return result

    def next_round(self, result: Mapping[str, Any]) -> dict[str, Any]:
        return {"ticket": str(result.get("ticket", ""))}

    def stop(self, result: Mapping[str, Any], seconds: float) -> Stop:
        return why(self._host, Result(result["code"]), str(result["reason"]), seconds)


def as_told(host: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of ``warm``, which only saves time: what kept it from reading is told, and never a failure."""
    reason = str(result.get("msg") or result.get("reason") or "")
    told = {"warnings": [f"{host}: {reason}"]} if result.get("failed") and not result.get("unreachable") else {}
    return {**result, "failed": False, "msg": f"{host}: {reason}" if reason else "", **told}


def why(host: str, code: Result, reason: str, seconds: float) -> Stop:
    """What a failure says, and what to type."""
    again = f"{STAGE} --limit {host}"
    if code is Result.DEADLINE:
        cause = f"{host}: not done after {seconds:.0f} s ({reason}); it goes on there until its own deadline (model_deadline)"
        return Stop(cause, again)
    if code is Result.NO_ROOM:
        return Stop(f"{host}: {reason}", PRUNE)
    if code is Result.REFUSED:
        return Stop(f"{host}: {reason}: the hub wants another token (vllm_server_hub_token)", again)
    if code is Result.DAMAGED:
        return Stop(f"{host}: {reason}. What is damaged is fetched again by", again)
    return Stop(f"{host}: {reason}", again)
