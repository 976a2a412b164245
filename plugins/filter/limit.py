"""Filters for playbooks over whole replicas: what ``--limit`` leaves out of them, and which one a host belongs to."""

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


def replica_of(hostvars: Any, groups: Mapping[str, Sequence[str]], host: str) -> str:
    """The replica that ``host`` belongs to, the child of group ``lockstep`` that has it."""
    replicas = ansible_internals.child_groups(hostvars, topology.ROOT)
    return next(name for name in replicas if host in groups[name])


def models_to_keep(hostvars: Any, groups: Mapping[str, Sequence[str]], folder: str) -> list[str]:
    """Names of the staged models that a host of the inventory wants, or that one has said that it uses."""
    keep: set[str] = set()
    for host in groups.get(topology.ROOT, ()):
        mine = hostvars[host]
        above, _, name = str(mine.get("vllm_server_model", "")).rstrip("/").rpartition("/")
        keep |= {name} if above == str(folder).rstrip("/") else set()
        keep |= set((mine.get("__model_used") or {}).get("in_use", ()))
    return sorted(keep)


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        return {"cut_by_limit": cut_by_limit, "models_to_keep": models_to_keep, "replica_of": replica_of}
