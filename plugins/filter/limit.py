"""Filters for playbooks over whole replicas: what ``--limit`` leaves out of them, and which one a host belongs to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import names
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.policy import Policy
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.preconditions import Capacity, removal
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, whole_replicas


def cut_by_limit(
    hostvars: Any, groups: Mapping[str, Sequence[str]], hosts: Collection[str], playbook: str
) -> dict[str, str]:
    """``cause`` and ``next`` where ``hosts``, those of the play, are only a part of a replica; empty where they are not."""
    replicas = {name: groups[name] for name in ansible_internals.child_groups(hostvars, topology.ROOT)}
    missing = whole_replicas.missing(replicas, hosts)
    if not missing:
        return {}
    whole = whole_replicas.touched(replicas, hosts)
    left_out = f"--limit leaves out {names(missing)} of {', '.join(whole)}"
    if playbook == "remove":
        asked = ",".join(host for name in whole for host in replicas[name] if host in hosts)
        alone = f"take it out of the inventory, run site.yml, then ansible-playbook … -i {asked}, --limit {asked}"
        return {
            "cause": f"{left_out}: a replica is removed as a whole, and nothing was done. For a host alone: {alone}",
            "next": "",
        }
    return {
        "cause": f"{left_out}: gates need all hosts of a replica, and nothing was done",
        "next": f"ansible-playbook playbooks/{playbook}.yml --limit {','.join(whole)}",
    }


def unmet_by_removal(
    hostvars: Any,
    groups: Mapping[str, Sequence[str]],
    hosts: Collection[str],
    unready: Mapping[str, str],
    capacity_floor: object = None,
) -> dict[str, str]:
    """Why the replicas of ``hosts`` cannot be removed now: ``cause`` and ``next``; empty where they can.

    Args:
        hostvars, groups: Ansible's.
        hosts: those of the play, whole replicas.
        unready: of lockstep.vllm.rollout_lock, per head why its replica does not answer requests.
        capacity_floor: ``rollout_capacity_floor``; None or empty for its default.
    """
    replicas = ansible_internals.child_groups(hostvars, topology.ROOT)
    try:
        policy = Policy.parse(None, None if capacity_floor is None else str(capacity_floor), None, ())
    except ValueError as error:
        stop: Stop | None = Stop(str(error))
    else:
        leaving = whole_replicas.touched({name: groups[name] for name in replicas}, hosts)
        stop = removal(leaving, Capacity(policy.floor(len(replicas)), unready, set(hosts)))
    return {} if stop is None else {"cause": stop.cause, "next": stop.next}


def replica_of(hostvars: Any, groups: Mapping[str, Sequence[str]], host: str) -> str:
    """The replica that ``host`` belongs to, the child of group ``lockstep`` that has it."""
    replicas = ansible_internals.child_groups(hostvars, topology.ROOT)
    return next(name for name in replicas if host in groups[name])


def models_to_keep(hostvars: Any, groups: Mapping[str, Sequence[str]], folder: str) -> list[str]:
    """Names of the staged models that a host of the inventory wants, or that one has said that it uses."""
    keep: set[str] = set()
    for host in groups.get(topology.ROOT, ()):
        mine = hostvars[host]
        above, _slash, name = str(mine.get("vllm_server_model", "")).rstrip("/").rpartition("/")
        keep |= {name} if above == str(folder).rstrip("/") else set()
        keep |= set((mine.get("__model_used") or {}).get("in_use", ()))
    return sorted(keep)


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        functions = (cut_by_limit, models_to_keep, replica_of, unmet_by_removal)
        return {function.__name__: function for function in functions}
