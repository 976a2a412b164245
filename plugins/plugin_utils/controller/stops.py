"""How an action fails with the next command as a field of its result."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop


def fail(stop: Stop) -> AnsibleActionFail:
    """To be raised by an action, from however deep; the task's result then has what ``stop`` has."""
    return AnsibleActionFail(str(stop), result=stop.as_result())
