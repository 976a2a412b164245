"""Show what every replica and host does: the action behind lockstep.vllm.status (documented in plugins/modules/status.py)."""

from __future__ import annotations

from typing import cast

from ansible.utils.display import Display

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import render
from ansible_collections.lockstep.vllm.plugins.modules import status as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import whole_replicas
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import Cluster, ClusterAction, let_in
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import cluster_status, status_table, status_types

_RENDER = {"table": status_table.as_text, "json": status_table.as_json}


class ActionModule(ClusterAction):
    """One probe of all hosts, shown as a table or as JSON, and returned as data."""

    DOCUMENTATION = documented.DOCUMENTATION

    def act(self, arguments: Values, task_vars: Values) -> Values:
        whole = self.cluster(task_vars, strict=False)
        if whole.topology.problems:
            return {"failed": True, "msg": render.invalid_inventory(whole.topology.problems)}
        asked = task_vars["ansible_play_hosts_all"]
        cluster = whole.of(asked)
        found = self.probe(cluster, task_vars, ray=True)
        others = self._others(whole, task_vars) if arguments["others"] else {}
        status = cluster_status.build(
            cast(status_types.Probe, cluster.probed(found)),
            data_tables.read("known_issues"),
            whole.unexpected({**found, **others}),
            [host for host, answer in others.items() if not answer.value],
        )
        text = _RENDER[arguments["format"]](status)
        replicas = {replica.name: replica.hosts for replica in cluster.topology.replicas}
        if arguments["format"] == "table" and whole_replicas.missing(replicas, asked):
            text = f"{whole_replicas.said(replicas, asked)}\n\n{text}"
        Display().display(Invocation.of_this_run().repeated(text) if arguments["format"] == "table" else text)
        return {"changed": False, "status": status, **({"warnings": [*cluster.faults]} if cluster.faults else {})}

    def _others(self, cluster: Cluster, task_vars: Values) -> dict[str, Answer]:
        """What hosts of the inventory that are in no replica, and no routers, answer."""
        hosts = [host for host in task_vars["groups"]["all"] if host not in cluster.wanted]
        asked = self.ask_each("host.probe", "collect", {host: {} for host in hosts}, task_vars)
        return {host: let_in(answer) for host, answer in asked.items()}
