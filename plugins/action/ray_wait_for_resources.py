"""Wait on the host in short calls, reporting to the play between them who is missing and why."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.waiting_action import WaitingAction


class ActionModule(WaitingAction):
    """The module, called again until it is ready, hopeless or late."""

    MODULE = "lockstep.vllm.ray_wait_for_resources"

    def stop(self, result: Values, seconds: float) -> Stop:
        cause = f"Ray's resources are not there after {seconds:.0f} s: {result['reason']}"
        return Stop(cause, "ansible-playbook playbooks/status.yml")
