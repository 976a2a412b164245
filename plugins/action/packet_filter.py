"""Tell a host whom its packet filter lets in: the routers come from the inventory, everything else from the task."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import routers
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction


class ActionModule(ClusterAction):
    """The action behind lockstep.vllm.packet_filter (documented in plugins/modules/packet_filter.py)."""

    BYPASS_HOST_LOOP = False
    _VALID_ARGS = frozenset({"state", "clients", "open", "egress"})

    def act(self, arguments: Values, task_vars: Values) -> Values:
        if arguments.get("state", "present") == "present":
            arguments["routers"] = routers.resolved(routers.declared_addresses(self._templar, task_vars))
        return dict(self._execute_module("lockstep.vllm.packet_filter", arguments, task_vars=task_vars))
