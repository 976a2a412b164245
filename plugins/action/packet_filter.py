"""Tell a host whom its packet filter lets in: the routers come from the inventory, everything else from the task."""

from __future__ import annotations

from typing import Any

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import routers
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import ClusterAction


class ActionModule(ClusterAction):
    """The action behind lockstep.vllm.packet_filter (documented in plugins/modules/packet_filter.py)."""

    BYPASS_HOST_LOOP = False
    _VALID_ARGS = frozenset({"state", "clients", "open"})

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables, arguments = task_vars or {}, dict(self._task.args)
        if arguments.get("state", "present") == "present":
            arguments["routers"] = routers.resolved(routers.declared_addresses(self._templar, variables))
        return dict(self._execute_module("lockstep.vllm.packet_filter", arguments, task_vars=variables))
