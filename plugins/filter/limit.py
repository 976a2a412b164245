"""Filter for playbooks that look at whole replicas: what ``--limit`` leaves out of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import names
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals


def cut_by_limit(
    hostvars: Any, groups: Mapping[str, Sequence[str]], hosts: Collection[str], playbook: str
) -> dict[str, str]:
    """``cause`` and ``next`` where ``hosts``, those of the play, are only a part of a replica; empty where they are not."""
    replicas = {name: groups[name] for name in ansible_internals.child_groups(hostvars, topology.ROOT)}
    asked = {name: members for name, members in replicas.items() if set(members) & set(hosts)}
    missing = [host for members in asked.values() for host in members if host not in hosts]
    if not missing:
        return {}
    whole = ",".join(asked)
    stop = Stop(
        f"--limit leaves out {names(missing)} of {whole}: gates need all hosts of a replica, and nothing was done",
        f"ansible-playbook playbooks/{playbook}.yml --limit {whole}",
    )
    return {"cause": stop.cause, "next": stop.next}


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        return {"cut_by_limit": cut_by_limit}
