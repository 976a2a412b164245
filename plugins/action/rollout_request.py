"""Ask a roll to pause or to abort: the action behind lockstep.vllm.rollout_request (plugins/modules/rollout_request.py)."""

from __future__ import annotations

from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.lock_record import Requested
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import RequestAction
from ansible_collections.lockstep.vllm.plugins.modules import rollout_request as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import identity, stops
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.heads import HeadsAction


class ActionModule(HeadsAction):
    """The request lies on every head, so that whichever controller rolls, now or days later, comes across it."""

    DOCUMENTATION = documented.DOCUMENTATION

    def act(self, arguments: Values, task_vars: Values) -> Values:
        heads = self.heads(task_vars)
        request: Requested | None = None
        if arguments["action"] != RequestAction.RESUME:
            request = {
                "action": arguments["action"],
                "reason": arguments["reason"],
                "by": identity.operator(),
                "at": records.now(),
            }
        before = self.ask(heads, {"do": "read"}, task_vars)
        due = [
            host
            for host, answer in before.items()
            if answer.value is None or _content(answer.value.request) != _content(request)
        ]
        if self._task.check_mode or not due:
            return {"changed": bool(due), "request": request}
        answers = self.ask(due, {"do": "request", "request": request}, task_vars)
        silent = {host: answer.error for host, answer in answers.items() if answer.value is None}
        result: Values = {"changed": len(silent) < len(due), "request": request, "silent": silent}
        if len(silent) == len(heads):
            shown = "; ".join(f"{host}: {error}" for host, error in silent.items())
            stop = Stop(f"no head could be reached: {shown}", f"ansible {heads[0]} -m ansible.builtin.ping")
            result |= {"failed": True, **stops.as_result(stop)}
        elif silent:
            result["warnings"] = [f"{host} could not be reached: {error}" for host, error in silent.items()]
        return result


def _content(request: Any) -> tuple[Any, Any]:
    return (request or {}).get("action"), (request or {}).get("reason")
