"""Record on a host what a role was applied from: the action behind lockstep.vllm.record_inputs."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction


class ActionModule(ClusterAction):
    """The digest is taken on the controller, the checksums on the host."""

    BYPASS_HOST_LOOP = False
    _VALID_ARGS = frozenset({"role", "files", "variables"})

    def act(self, arguments: Values, task_vars: Values) -> Values:
        if topology.ROOT not in task_vars["groups"]:
            return {
                "changed": False,
                "msg": f"nothing to record: the inventory has no group '{topology.ROOT}' to plan for",
            }
        host, role = task_vars["inventory_hostname"], arguments["role"]
        cluster = self.cluster(task_vars, only=host, over=arguments.get("variables"))
        if host not in cluster.wanted:
            raise AnsibleActionFail(f"{host}: {'; '.join(cluster.topology.problems) or 'belongs to no replica'}")
        recorded = {"role": role, "files": arguments.get("files", []), "inputs": cluster.wanted[host].inputs[role]}
        return dict(self._execute_module("lockstep.vllm.record_inputs", recorded, task_vars=task_vars))
