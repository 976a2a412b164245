"""A word with the head of every replica: what the actions around the rollout lock have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import render
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import settings
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer, Fleet, program


class HeadsAction(ClusterAction):
    """Base of the actions that speak to the heads of all replicas, whatever ``--limit`` says."""

    def heads(self, task_vars: Mapping[str, Any], without: Sequence[str] = ()) -> list[str]:
        """The heads, sorted by name, so that all controllers go to them in one order."""
        topology = self.cluster(task_vars, only="").topology
        if topology.problems:
            raise AnsibleActionFail(render.invalid_inventory(topology.problems))
        heads = sorted(replica.head for replica in topology.replicas)
        strangers = sorted(set(without) - set(heads))
        if strangers:
            raise AnsibleActionFail(
                f"without names {', '.join(strangers)}, no head of a replica; heads: {', '.join(heads)}"
            )
        return [head for head in heads if head not in without]

    def ask(self, hosts: Sequence[str], wish: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Answer]:
        """``rollout_lock.apply(wish)`` on each of ``hosts``, all at once."""
        hostvars = task_vars["hostvars"]
        text = program("rollout.lock", "apply", wish)
        connections = {host: settings.connection(self._templar, hostvars.raw_get(host)) for host in hosts}
        fleet = Fleet(self._play_context, bool(self._task.become), int(task_vars.get("ansible_forks", 5)))
        return fleet.ask(dict.fromkeys(hosts, text), connections)
