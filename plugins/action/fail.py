"""Fail with the next command as a field: the action of lockstep.vllm.fail (documented in plugins/modules/fail.py)."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import stops
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation


class ActionModule(ActionBase):
    """Fails; what ansible.builtin.fail cannot say is said in ``next``."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset({"cause", "next"})

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        spec = {"cause": {"type": "str", "required": True}, "next": {"type": "str", "default": ""}}
        _result, arguments = self.validate_argument_spec(argument_spec=spec)
        headline, *rest = arguments["cause"].splitlines()
        if not rest:
            return {"failed": True, **stops.as_result(Stop(arguments["cause"], arguments["next"]))}
        # Ansible prints a message twice, so that what follows its first line is in a field of its own.
        lines = [*rest, *([f"Next: {arguments['next']}"] if arguments["next"] else [])]
        whole = {"msg": headline, "reasons": "\n".join(lines) + "\n", "next": arguments["next"]}
        return {"failed": True, **Invocation.of_this_run().in_result(whole)}
