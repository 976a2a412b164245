"""How an action fails: with the next command as a field of its result, such that this run's operator can paste it."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation


def as_result(stop: Stop) -> dict[str, Any]:
    """What a task's result has of ``stop``."""
    return Invocation.of_this_run().in_result(stop.as_result())


def fail(stop: Stop) -> AnsibleActionFail:
    """To be raised by an action, from however deep; the task's result then has what ``stop`` has."""
    result = as_result(stop)
    return AnsibleActionFail(result["msg"], result=result)
