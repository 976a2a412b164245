"""Read every host's state at once: the action behind lockstep.vllm.probe (documented in plugins/modules/probe.py)."""

from __future__ import annotations

from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import render
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction


class ActionModule(ClusterAction):
    """Every host's state in one task; hosts that do not answer are in the result, not a failure."""

    _VALID_ARGS = frozenset({"ray"})

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        cluster = self.cluster(variables)
        if cluster.topology.problems:
            return {"failed": True, "msg": render.invalid_inventory(cluster.topology.problems)}
        found = self.probe(cluster, variables, ray=bool(self._task.args.get("ray", False)))
        return {"changed": False, **cluster.probed(found)}
