"""The cluster as the inventory declares it and as its hosts answer, for the actions that speak to all hosts at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.needs import Desired
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import settings
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer, Fleet, program

ROUTER_GROUP = "router"
PORTS = ("ray_node_port", "vllm_server_port", "vllm_server_ready_port")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The inventory, resolved.

    Attributes:
        topology: its replicas, or what is wrong with it.
        wanted: what it wants of each host of a replica, and of each router.
        routers: the hosts of group ``router``.
    """

    topology: topology.Topology
    wanted: Mapping[str, Desired]
    routers: tuple[str, ...]


class ClusterAction(ActionBase):
    """Base of the actions that look at every host in one task."""

    BYPASS_HOST_LOOP = True

    def cluster(
        self, task_vars: Mapping[str, Any], only: str | None = None, over: Mapping[str, Any] | None = None
    ) -> Cluster:
        """Read the inventory; with ``only``, what is wanted of that one host alone, with the variables ``over`` its own.

        Its problems are in ``topology.problems``; wrong templates raise Ansible's own error.
        """
        groups, hostvars = task_vars["groups"], task_vars["hostvars"]
        declared, routers = set(groups.get(topology.ROOT, ())), tuple(groups.get(ROUTER_GROUP, ()))
        default = settings.defaults(self._loader)
        placed = {
            host: settings.resolve(
                self._templar, hostvars.raw_get(host), default if host in declared else {}, topology.VARIABLES
            )
            for host in groups["all"]
        }
        read = topology.read(groups, replica_groups(hostvars), placed)
        wanted: dict[str, Desired] = {}
        for replica in read.replicas:
            context = {"replica": replica.name, "head": replica.head, "peers": dict(replica.addresses)}
            for host in replica.hosts:
                if only in (None, host):
                    wanted[host] = self._wanted(
                        {**hostvars.raw_get(host), **(over or {})}, settings.HOST_ROLES, context
                    )
        everything = {replica.name: dict(replica.addresses) for replica in read.replicas}
        for host in routers if read.replicas else ():
            if only in (None, host):
                wanted[host] = self._wanted(hostvars.raw_get(host), settings.ROUTER_ROLES, everything)
        return Cluster(read, wanted, routers)

    def survey(self, cluster: Cluster, task_vars: Mapping[str, Any], **wishes: Any) -> dict[str, Answer]:
        """Ask every host for its state, all at once; ``wishes`` go to ``survey.collect``."""
        hostvars = task_vars["hostvars"]
        fleet = Fleet(self._play_context, bool(self._task.become), int(task_vars.get("ansible_forks", 5)))
        return fleet.ask_each(
            (
                host,
                program("host.probe", "collect", {**wishes, **_questions(cluster, host, wanted)}),
                settings.connection(self._templar, hostvars.raw_get(host)),
            )
            for host, wanted in cluster.wanted.items()
        )

    def _wanted(self, raw: Mapping[str, Any], roles: tuple[str, ...], context: Mapping[str, Any]) -> Desired:
        names = sorted({name for role in roles for name in settings.public_variables(role)})
        mine = settings.resolve(self._templar, raw, settings.defaults(self._loader, roles), names)
        inputs = {role: settings.role_inputs(role, mine, context) for role in roles}
        return Desired(mine, inputs, settings.promised_runtime(mine.get("serving_runtime_lock")))


def replica_groups(hostvars: Any) -> list[str]:
    """The child groups of group ``lockstep``, in inventory order."""
    root = hostvars._inventory.groups.get(topology.ROOT)
    return [] if root is None else [group.name for group in root.child_groups]


def _questions(cluster: Cluster, host: str, wanted: Desired) -> dict[str, Any]:
    if host in cluster.routers:
        return {}
    mine = wanted.settings
    replica = cluster.topology.replica_of(host)
    heads_only = ("vllm_server_port", "vllm_server_ready_port")
    ports = [mine[name] for name in PORTS if mine.get(name) and (host == replica.head or name not in heads_only)]
    repository = mine.get("nvidia_driver_repository_url")
    return {
        "ports": [int(port) for port in ports],
        "peers": dict(replica.addresses),
        "driver": {
            "version": mine.get("nvidia_driver_version"),
            "source": mine.get("nvidia_driver_source"),
            "flavor": mine.get("nvidia_driver_flavor"),
            "fabric_manager": mine.get("nvidia_driver_fabric_manager") == "present",
            "repository_url": repository if mine.get("nvidia_driver_source") in ("nvidia", "mirror") else None,
        },
    }
