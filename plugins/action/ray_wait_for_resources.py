"""Wait on the host in short calls, reporting to the play between them who is missing and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.waiting_action import WaitingAction


class ActionModule(WaitingAction):
    """The module, called again until it is ready, hopeless or late."""

    MODULE = "lockstep.vllm.ray_wait_for_resources"

    def message(self, result: Mapping[str, Any], seconds: float) -> str:
        late = f"Ray's resources are not there after {seconds:.0f} s"
        return f"{late}: {result['reason']}. Next: ansible-playbook playbooks/status.yml"
