"""Fail with the next command as a field: the action of lockstep.vllm.fail (documented in plugins/modules/fail.py)."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.modules import fail as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import stops
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Action, Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation


class ActionModule(Action):
    """Fails; what ansible.builtin.fail cannot say is said in ``next``."""

    TRANSFERS_FILES = False
    _requires_connection = False
    DOCUMENTATION = documented.DOCUMENTATION

    def act(self, arguments: Values, task_vars: Values) -> Values:
        outcome = {"failed": True, **({"refused": True} if arguments["refused"] else {})}
        headline, *rest = arguments["cause"].splitlines()
        if not rest:
            return {**outcome, **stops.as_result(Stop(arguments["cause"], arguments["next"]))}
        # Ansible prints a message twice, so that what follows its first line is in a field of its own.
        lines = [*rest, *([f"Next: {arguments['next']}"] if arguments["next"] else [])]
        whole = {"msg": headline, "reasons": "\n".join(lines) + "\n", "next": arguments["next"]}
        return {**outcome, **Invocation.of_this_run().in_result(whole)}
