"""From the inventory's groups to replicas, or to the reasons why the inventory cannot mean a cluster."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from ..core.grouping import grouped
from .settings import Settings

ROOT = "lockstep"
ROLES = ("head", "worker")
GROUPS_OF_OURS = ("all", "ungrouped", ROOT, "router")
"""Groups that mean something else; so do those that a plan makes, which begin with ``lockstep_``."""
VARIABLES = ("ray_node_role", "gpu_host_address", "gpu_host_interface", "gpu_host_zone")


@dataclasses.dataclass(frozen=True)
class Replica:
    """One vLLM engine's hosts. ``hosts`` starts with the head; ``addresses`` maps every host to its cluster address."""

    name: str
    head: str
    workers: tuple[str, ...]
    addresses: Mapping[str, str]
    zone: str | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        return (self.head, *self.workers)


@dataclasses.dataclass(frozen=True)
class Topology:
    """All replicas in inventory order, or, where ``problems`` is not empty, why there are none to speak of."""

    replicas: tuple[Replica, ...] = ()
    problems: tuple[str, ...] = ()

    def replica_of(self, host: str) -> Replica:
        """The replica that ``host`` belongs to; KeyError names a host that belongs to none."""
        for replica in self.replicas:
            if host in replica.hosts:
                return replica
        raise KeyError(host)


def read(
    groups: Mapping[str, Sequence[str]],
    replica_groups: Iterable[str],
    hostvars: Mapping[str, Settings],
) -> Topology:
    """The topology that an inventory declares.

    Args:
        groups: every group of the inventory with its hosts (Ansible's ``groups``).
        replica_groups: the children of group ``lockstep``; each is a replica.
        hostvars: per host, the ``VARIABLES`` that are set on it.
    """
    names = list(replica_groups)
    problems = [*_group_problems(groups, names, hostvars)]
    replicas = []
    for name in names:
        found = _replica(name, list(groups.get(name, [])), hostvars)
        if isinstance(found, Replica):
            replicas.append(found)
        else:
            problems.extend(found)
    problems.extend(_shared_addresses(replicas))
    return Topology(problems=tuple(problems)) if problems else Topology(replicas=tuple(replicas))


def _group_problems(
    groups: Mapping[str, Sequence[str]], names: list[str], hostvars: Mapping[str, Settings]
) -> Iterable[str]:
    if ROOT not in groups:
        yield f"the inventory has no group '{ROOT}': put one child group per replica under it"
        return
    if not names:
        yield f"group '{ROOT}' has no child groups: each replica is a child group of '{ROOT}' with its hosts"
    for name in names:
        if name in GROUPS_OF_OURS or name.startswith(f"{ROOT}_"):
            yield f"replica {name} has the name of a group that Lockstep uses itself: give the replica another name"
    members = grouped((host, name) for name in names for host in groups.get(name, []))
    for host, inside in members.items():
        if len(inside) > 1:
            yield f"{host} is in replicas {' and '.join(inside)}: a host belongs to one replica; remove it from the others"
    for host in groups[ROOT]:
        if host not in members and names:
            yield f"{host} is in '{ROOT}' but in no replica: move it into one of {', '.join(names)}"
    for host, variables in hostvars.items():
        if variables.get("ray_node_role") and host not in groups[ROOT]:
            known = sorted(name for name, hosts in groups.items() if host in hosts and name not in ("all", "ungrouped"))
            where = f"unknown group {', '.join(known)}" if known else "no group"
            yield f"{host} has ray_node_role but is in {where}: make that group a child of '{ROOT}'"


def _replica(name: str, hosts: list[str], hostvars: Mapping[str, Settings]) -> Replica | list[str]:
    if not hosts:
        return [f"replica {name} has no hosts: add its head and workers, or remove the group"]
    problems, addresses, heads = [], {}, []
    for host in hosts:
        variables = hostvars.get(host, {})
        role = variables.get("ray_node_role")
        if role not in ROLES:
            problems.append(f"{host} ({name}): ray_node_role is {role!r}; set it to head or worker")
        if role == "head":
            heads.append(host)
        for needed in ("gpu_host_address", "gpu_host_interface"):
            if not variables.get(needed):
                problems.append(f"{host} ({name}): {needed} is not set; see inventories/examples")
        addresses[host] = str(variables.get("gpu_host_address", ""))
        if addresses[host] and (problem := address_problem(addresses[host])):
            problems.append(
                f"{host} ({name}): gpu_host_address {addresses[host]} {problem}: set it, or ansible_host, to the IPv4 address "
                "by which the hosts of its replica reach it"
            )
    if not heads:
        problems.append(f"replica {name} has no head: set ray_node_role: head on one of {', '.join(hosts)}")
    if len(heads) > 1:
        problems.append(
            f"replica {name} has {len(heads)} heads ({', '.join(heads)}): keep one, make the others workers"
        )
    if problems:
        return problems
    zones = {hostvars[host].get("gpu_host_zone") for host in hosts}
    if len(zones) > 1:
        shown = ", ".join(f"{host}={hostvars[host].get('gpu_host_zone')}" for host in hosts)
        return [f"replica {name} spans zones ({shown}): a replica's hosts must be in one zone"]
    zone = zones.pop()
    workers = tuple(host for host in hosts if host != heads[0])
    return Replica(name, heads[0], workers, addresses, None if zone is None else str(zone))


def address_problem(address: str) -> str | None:
    """Why hosts cannot reach one another at ``address``; None where they may."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "is no IP address"
    if parsed.version != 4:
        return "is no IPv4 address, which names, units and gates need"
    if parsed.is_loopback:
        return "is a loopback address, which means another machine on every host"
    if parsed.is_unspecified or parsed.is_multicast or address == "255.255.255.255":
        return "is no address of a host"
    return None


def _shared_addresses(replicas: list[Replica]) -> Iterable[str]:
    owners = grouped((address, host) for replica in replicas for host, address in replica.addresses.items())
    for address, hosts in owners.items():
        if len(set(hosts)) > 1:
            yield f"{' and '.join(sorted(set(hosts)))} share the address {address}: give each its own gpu_host_address"
