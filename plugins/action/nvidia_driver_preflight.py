"""Wait on the host for apt's locks in short calls, saying between them who holds them; then what is wrong with its packages."""

from __future__ import annotations

import dataclasses

from ansible_collections.lockstep.vllm.plugins.module_utils.core import typed
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.package_problems import Problem
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import driver_preflight
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.waiting_action import WaitingAction


class ActionModule(WaitingAction):
    """The module, called again while apt is in use, until its deadline."""

    MODULE = "lockstep.vllm.nvidia_driver_preflight"
    SECONDS = 10.0
    REPEATS = True

    def stop(self, result: Values, seconds: float) -> Stop:
        problems = typed.parse(list[Problem], result["problems"], typed.NEWER)
        refused = [problem for problem in problems if not problem.warns]
        if not refused:
            return driver_preflight.apt_in_use(self.host, result["reason"], seconds)
        stops = [problem.stop(self.host) for problem in refused]
        first = next((stop for stop in stops if stop.next), stops[0])
        return dataclasses.replace(first, cause="; ".join(stop.cause for stop in stops))
