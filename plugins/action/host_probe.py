"""Run a module of this collection on its host; the commands in what it reports are ones that this run's operator can paste.

Behind every module that has no action of its own: meta/runtime.yml says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import normal

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation


class ActionModule(normal.ActionModule):
    """What Ansible does for any module, and then the commands."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        return Invocation.of_this_run().in_result(result, _replica_of(task_vars or {}))


def _replica_of(task_vars: Mapping[str, Any]) -> dict[str, str]:
    """Host to replica, by the inventory; empty where it has no group ``lockstep``."""
    groups = task_vars["groups"]
    replicas = ansible_internals.child_groups(task_vars["hostvars"], topology.ROOT)
    return {host: name for name in replicas for host in groups[name]}
