"""Waiting on a host in short calls of one module, reporting progress to the play between them."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import stops
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import progress

ROUND = 15.0
"""Seconds of one call: how often the play can hear of a change."""
DEADLINE = 1800.0


class WaitingAction(ActionBase):
    """The module of the same name, called again until it is ready, hopeless or late.

    The module takes ``deadline`` (seconds) and returns ``code``, which is ``deadline`` where more time may help, and
    ``reason``.

    Attributes:
        MODULE: its full name.
        SECONDS: how long one call is.
        REPEATS: whether the reason is shown after every call, not only when it changes.
    """

    MODULE: ClassVar[str]
    SECONDS: ClassVar[float] = ROUND
    REPEATS: ClassVar[bool] = False

    def run(self, tmp: Any = None, task_vars: Values | None = None) -> Values:
        super().run(tmp, task_vars)
        variables, arguments = task_vars or {}, dict(self._task.args)
        self.host = str(variables["inventory_hostname"])
        deadline, stable = float(arguments.get("deadline", DEADLINE)), float(arguments.get("stable_for", 0.0))
        started, shown = time.monotonic(), ""
        rounds: list[Values] = []
        while True:
            left = max(0.0, deadline - (time.monotonic() - started))
            arguments["deadline"] = min(left, self.SECONDS + stable)
            result = dict(self._execute_module(self.MODULE, arguments, task_vars=variables))
            rounds.append(result)
            elapsed = time.monotonic() - started
            if result.get("code") != "deadline" or elapsed >= deadline or self._task.check_mode:
                break
            if self.REPEATS or result["reason"] != shown:
                shown = result["reason"]
                progress.tell(self.host, elapsed, shown)
            arguments |= self.next_round(result)
        if "seconds" in result:
            result["seconds"] = round(elapsed, 1)
        result["changed"] = any(one.get("changed") for one in rounds)
        if result.get("failed") and result.get("reason"):
            result |= stops.as_result(self.stop(result, elapsed))
        return result

    def next_round(self, result: Values) -> Values:
        """Arguments that the next call takes from this one's result."""
        return {}

    def stop(self, result: Values, seconds: float) -> Stop:
        """Why it fails."""
        raise NotImplementedError
