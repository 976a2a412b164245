"""Base of the actions around the rollout lock: they run a program on the head of every replica."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.lockstep.vllm.plugins.module_utils.core import typed
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import lock, render
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import stops
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer, program


class HeadsAction(ClusterAction):
    """Base of the actions on the heads of all replicas, whatever ``--limit`` says."""

    def heads(self, task_vars: Values, without: Sequence[str] = ()) -> list[str]:
        """The heads, sorted by name, so that all controllers go to them in one order."""
        topology = self.cluster(task_vars, only="").topology
        if topology.problems:
            raise stops.refuse(Stop(render.invalid_inventory(topology.problems)))
        heads = sorted(replica.head for replica in topology.replicas)
        unknown = sorted(set(without) - set(heads))
        if unknown:
            cause = f"without: {', '.join(unknown)} is not the head of a replica; these are: {', '.join(heads)}"
            raise stops.refuse(Stop(cause))
        return [head for head in heads if head not in without]

    def ask(self, hosts: Sequence[str], params: lock.Asked, task_vars: Values) -> dict[str, Answer]:
        """``rollout.lock.apply(params)`` on each of ``hosts``, all at once."""
        kind = lock.Claimed if params["do"] in lock.CLAIMS else lock.Seen
        answers = self.run_on(hosts, program("rollout.lock", "apply", params), task_vars)
        return {host: answer.checked(kind, typed.PARTIAL) for host, answer in answers.items()}
