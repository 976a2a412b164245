"""Record on a host what a role was applied from: the action behind lockstep.vllm.record_inputs."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction


class ActionModule(ClusterAction):
    """The digest is taken on the controller, the checksums on the host."""

    BYPASS_HOST_LOOP = False
    _VALID_ARGS = frozenset({"role", "files", "variables"})

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        if topology.ROOT not in variables["groups"]:
            return {
                "changed": False,
                "msg": f"nothing to record: the inventory has no group '{topology.ROOT}' to plan for",
            }
        host, role = variables["inventory_hostname"], self._task.args["role"]
        cluster = self.cluster(variables, only=host, over=self._task.args.get("variables"))
        if host not in cluster.wanted:
            raise AnsibleActionFail(f"{host}: {'; '.join(cluster.topology.problems) or 'belongs to no replica'}")
        arguments = {
            "role": role,
            "files": self._task.args.get("files", []),
            "inputs": cluster.wanted[host].inputs[role],
        }
        return dict(self._execute_module("lockstep.vllm.record_inputs", arguments, task_vars=variables))
