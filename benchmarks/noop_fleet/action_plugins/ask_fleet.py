"""What a plan and a status ask of all hosts, and nothing else: how many of them answered."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction


class ActionModule(ClusterAction):
    """One call per host, all hosts at once."""

    DOCUMENTATION = "options: {}"

    def act(self, arguments: Values, task_vars: Values) -> Values:
        answers = self.probe(self.cluster(task_vars), task_vars)
        return {"changed": False, "answered": sum(each.value is not None for each in answers.values())}
