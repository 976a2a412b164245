"""Read every host's state at once: the action behind lockstep.vllm.probe (documented in plugins/modules/probe.py)."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import render
from ansible_collections.lockstep.vllm.plugins.modules import probe as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction


class ActionModule(ClusterAction):
    """Every host's state in one task; hosts that do not answer are in the result, not a failure."""

    DOCUMENTATION = documented.DOCUMENTATION

    def act(self, arguments: Values, task_vars: Values) -> Values:
        cluster = self.cluster(task_vars)
        if cluster.topology.problems:
            return {"failed": True, "msg": render.invalid_inventory(cluster.topology.problems)}
        found = self.probe(cluster, task_vars, ray=arguments["ray"])
        return {"changed": False, **cluster.probed(found)}
