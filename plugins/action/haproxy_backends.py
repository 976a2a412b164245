"""Name the replicas of the inventory and where their heads answer, for the router's configuration."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.modules import haproxy_backends as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, settings, stops
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction

_PORTS = ("vllm_server_port", "vllm_server_ready_port")


class ActionModule(ClusterAction):
    """Reads the inventory on the controller; no host is asked."""

    BYPASS_HOST_LOOP = False
    DOCUMENTATION = documented.DOCUMENTATION

    def act(self, arguments: Values, task_vars: Values) -> Values:
        topology = self.cluster(task_vars, only="").topology
        if topology.problems:
            raise stops.fail(
                Stop(f"{'; '.join(topology.problems)}. Correct the inventory, or set vllm_haproxy_replicas")
            )
        default = settings.defaults(self._loader)
        backends = []
        for replica in topology.replicas:
            raw = ansible_internals.raw_variables(task_vars["hostvars"], replica.head)
            port, ready_port = settings.resolve(self._templar, raw, default, _PORTS).values()
            address = replica.addresses[replica.head]
            backends.append(
                {"name": replica.name, "address": address, "port": int(port), "ready_port": int(ready_port)}
            )
        return {"changed": False, "backends": backends}
