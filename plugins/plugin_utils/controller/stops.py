"""How an action fails: with the next command as a field of its result, such that this run's operator can paste it."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation


def as_result(stop: Stop) -> dict[str, Any]:
    """What a task's result has of ``stop``."""
    return Invocation.of_this_run().in_result(stop.as_result())


def refusal(stop: Stop) -> dict[str, object]:
    """The result of a task that ends its play before anything is touched; what had been changed before decides whether that
    makes it the refusal of the run (plugin_utils/report/tracker.py)."""
    return {"failed": True, "refused": True, **as_result(stop)}


def fail(stop: Stop) -> AnsibleActionFail:
    """To be raised by an action, from however deep; the task's result then has what ``stop`` has."""
    result = as_result(stop)
    return AnsibleActionFail(result["msg"], result=result)


def refuse(stop: Stop) -> AnsibleActionFail:
    """As :func:`fail`, for what makes a request one that cannot be meant."""
    result = refusal(stop)
    return AnsibleActionFail(result["msg"], result=result)
