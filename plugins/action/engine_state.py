"""Wait on the head in short calls, reporting to the play between them what the engine does and what it waits for."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.waiting_action import WaitingAction


class ActionModule(WaitingAction):
    """The module, called again until the engine is in the desired state, cannot reach it, or is late."""

    MODULE = "lockstep.vllm.engine_state"

    def next_round(self, result: Values) -> Values:
        return {"failures_before": result["failures_before"]}

    def stop(self, result: Values, seconds: float) -> Stop:
        late = f" after {seconds:.0f} s" if result["code"] == "deadline" else ""
        desired = self._task.args["state"]
        return Stop(f"the engine is not {desired}{late}: {result['reason']}", result["next"])
