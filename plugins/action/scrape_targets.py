"""Name what Prometheus scrapes: the action behind lockstep.vllm.scrape_targets (documented in plugins/modules)."""

from __future__ import annotations

from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import with_port
from ansible_collections.lockstep.vllm.plugins.modules import scrape_targets as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import routers, stops
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import Cluster, ClusterAction

Target = dict[str, Any]


class ActionModule(ClusterAction):
    """Reads the inventory on the controller; no host is asked."""

    DOCUMENTATION = documented.DOCUMENTATION

    def act(self, arguments: Values, task_vars: Values) -> Values:
        cluster = self.cluster(task_vars)
        if cluster.topology.problems:
            raise stops.fail(Stop("; ".join(cluster.topology.problems)))
        addresses = routers.declared_addresses(self._templar, task_vars)
        return {"changed": False, **targets(cluster, addresses, arguments["exporter_port"])}


def targets(cluster: Cluster, routers_at: dict[str, str], exporter_port: int) -> dict[str, list[Target]]:
    """What file_sd_configs reads: ``hosts`` (node_exporter), ``replicas`` (vLLM on the heads), ``routers`` (HAProxy)."""
    replicas, wanted = cluster.topology.replicas, cluster.wanted
    addresses = [replica.addresses[host] for replica in replicas for host in replica.hosts]
    return {
        # Without labels: the metrics bring those of the host and its replica.
        "hosts": [{"targets": [f"{address}:{exporter_port}" for address in addresses]}],
        "replicas": [
            _target(replica.addresses[replica.head], wanted[replica.head].settings["vllm_server_port"], replica=replica.name)
            for replica in replicas
        ],
        "routers": [
            _target(routers_at[host], wanted[host].settings["vllm_haproxy_metrics_port"], router=host)
            for host in cluster.routers
            if wanted[host].settings["vllm_haproxy_metrics_clients"]
        ],
    }  # fmt: skip


def _target(address: str, port: Any, **labels: str) -> Target:
    return {"targets": [with_port(address, port)], "labels": labels}
