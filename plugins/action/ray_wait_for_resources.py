"""Wait on the host in short calls, and tell the play between them who is missing and why."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

MODULE = "lockstep.vllm.ray_wait_for_resources"
ROUND = 15.0
"""Seconds of one call: how often the play can hear of a change."""
DEADLINE = 1800.0
_display = Display()


class ActionModule(ActionBase):
    """The module, called again until it is ready, useless or late."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        deadline, stable = float(arguments.get("deadline", DEADLINE)), float(arguments.get("stable_for", 0.0))
        started, told = time.monotonic(), ""
        while True:
            left = max(0.0, deadline - (time.monotonic() - started))
            arguments["deadline"] = min(left, ROUND + stable)
            result = dict(self._execute_module(MODULE, arguments, task_vars=variables))
            elapsed = time.monotonic() - started
            if result.get("code") != "deadline" or elapsed >= deadline or self._task.check_mode:
                break
            if result["reason"] != told:
                told = result["reason"]
                _display.display(f"{variables['inventory_hostname']} waits since {elapsed:.0f} s: {told}")
        if "seconds" in result:
            result["seconds"] = round(elapsed, 1)
        if result.get("failed") and result.get("reason"):
            result["msg"] = f"Ray's resources are not there after {elapsed:.0f} s: {result['reason']}"
        return result
