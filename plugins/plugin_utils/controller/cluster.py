"""The cluster as the inventory declares it and as its hosts answer, for the actions that reach all hosts at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.lockstep.vllm.plugins.module_utils.ray import ports
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.needs import Desired
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, settings
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import (
    Answer,
    ConnectionVariables,
    Fleet,
    program,
)

ROUTER_GROUP = "router"


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

    def probed(self, answers: Mapping[str, Answer]) -> dict[str, Any]:
        """JSON of the replicas, the routers, and what each host answered; plugins/modules/probe.py documents it."""
        return {
            "replicas": {
                replica.name: {"head": replica.head, "hosts": list(replica.hosts), "zone": replica.zone}
                for replica in self.topology.replicas
            },
            "routers": list(self.routers),
            "hosts": {
                host: {"reachable": answer.reachable, "error": answer.error, "state": answer.value}
                for host, answer in answers.items()
            },
        }


class ClusterAction(ActionBase):
    """Base of the actions that read the whole inventory; they run once per task unless they say otherwise."""

    BYPASS_HOST_LOOP = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """To be called first by every action: fails on an ansible-core that is not supported."""
        ansible_internals.require_supported_version()
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result

    def declared(
        self,
        task_vars: Mapping[str, Any],
        only: str | None = None,
        over: Mapping[str, Any] | None = None,
        further: Collection[str] = (),
    ) -> dict[str, settings.Declared]:
        """What is declared for every host of group ``lockstep`` and every router, or for the host ``only``.

        Args:
            task_vars: those of the task.
            only: leaves out all other hosts.
            over: variables over the host's own.
            further: variables beside those of the hosts' roles to read where they are set.
        """
        groups, hostvars = task_vars["groups"], task_vars["hostvars"]
        routers = groups.get(ROUTER_GROUP, ())
        roles = {
            **dict.fromkeys(groups.get(topology.ROOT, ()), settings.HOST_ROLES),
            **dict.fromkeys(routers, settings.ROUTER_ROLES),
        }
        return {
            host: settings.declared(
                self._templar,
                {**ansible_internals.raw_variables(hostvars, host), **(over or {})},
                self._loader,
                mine,
                further,
            )
            for host, mine in roles.items()
            if only in (None, host)
        }

    def topology(self, task_vars: Mapping[str, Any], declared: Mapping[str, settings.Declared]) -> topology.Topology:
        """The inventory's replicas; what places a host is taken from what is ``declared`` where that has it."""
        groups, hostvars = task_vars["groups"], task_vars["hostvars"]
        hosts = set(groups.get(topology.ROOT, ()))
        default = settings.defaults(self._loader)
        placed = {
            host: declared[host].values
            if host in declared and declared[host].roles == settings.HOST_ROLES
            else settings.resolve(
                self._templar,
                ansible_internals.raw_variables(hostvars, host),
                default if host in hosts else {},
                topology.VARIABLES,
            )
            for host in groups["all"]
        }
        return topology.read(groups, ansible_internals.child_groups(hostvars, topology.ROOT), placed)

    def cluster(
        self,
        task_vars: Mapping[str, Any],
        only: str | None = None,
        over: Mapping[str, Any] | None = None,
        declared: Mapping[str, settings.Declared] | None = None,
    ) -> Cluster:
        """Read the inventory; with ``only``, what is wanted of that one host alone, with the variables ``over`` its own.

        Its problems are in ``topology.problems``. Templates that fail raise an error that names host and variable, unless the
        caller has read what is ``declared`` itself and answers for it.
        """
        routers = tuple(task_vars["groups"].get(ROUTER_GROUP, ()))
        mine = self.declared(task_vars, only, over) if declared is None else declared
        read = self.topology(task_vars, mine)
        faults = [
            f"{host}: {name} cannot be templated: {reason}"
            for host, each in mine.items()
            for name, reason in each.faults.items()
        ]
        if faults and declared is None and not read.problems:
            raise AnsibleActionFail("\n".join(faults))
        wanted: dict[str, Desired] = {}
        for replica in read.replicas:
            context = {"replica": replica.name, "head": replica.head, "peers": dict(replica.addresses)}
            wanted |= {host: _wanted(mine[host], context) for host in replica.hosts if host in mine}
        everything = {replica.name: dict(replica.addresses) for replica in read.replicas}
        if read.replicas:
            wanted |= {host: _wanted(mine[host], everything) for host in routers if host in mine}
        return Cluster(read, wanted, routers)

    def probe(self, cluster: Cluster, task_vars: Mapping[str, Any], **parameters: Any) -> dict[str, Answer]:
        """Read every host's state, all at once; ``parameters`` go to ``host.probe.collect``."""
        return self._fleet(task_vars).run_read_only(
            (
                host,
                program("host.probe", "collect", {**parameters, **_questions(cluster, host, wanted)}),
                self._connection_variables(host, task_vars),
            )
            for host, wanted in cluster.wanted.items()
        )

    def ask_each(
        self, module: str, function: str, requests: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> dict[str, Answer]:
        """Call one read-only function of the library on every host of ``requests``, all at once, each with its request."""
        return self._fleet(task_vars).run_read_only(
            (host, program(module, function, request), self._connection_variables(host, task_vars))
            for host, request in requests.items()
        )

    def run_on(self, hosts: Iterable[str], text: str, task_vars: Mapping[str, Any]) -> dict[str, Answer]:
        """Run one program on each of ``hosts``, all at once."""
        connections = {host: self._connection_variables(host, task_vars) for host in hosts}
        return self._fleet(task_vars).run(dict.fromkeys(connections, text), connections)

    def _fleet(self, task_vars: Mapping[str, Any]) -> Fleet:
        return Fleet(self._play_context, bool(self._task.become), int(task_vars.get("ansible_forks", 5)))

    def _connection_variables(self, host: str, task_vars: Mapping[str, Any]) -> ConnectionVariables:
        return settings.connection(self._templar, ansible_internals.raw_variables(task_vars["hostvars"], host))


def _wanted(declared: settings.Declared, context: Mapping[str, Any]) -> Desired:
    values = declared.values
    inputs = {role: settings.role_inputs(role, values, context) for role in declared.roles}
    lock = values.get("serving_runtime_lock")
    return Desired(values, inputs, settings.promised_runtime(lock if isinstance(lock, str) else None))


def _questions(cluster: Cluster, host: str, wanted: Desired) -> dict[str, Any]:
    if host in cluster.routers:
        return {}
    mine = wanted.settings
    replica = cluster.topology.replica_of(host)
    return {
        "ports": _ports(mine, host == replica.head),
        "peers": dict(replica.addresses),
    }


def _ports(settings: Mapping[str, Any], head: bool) -> list[int]:
    """The ports that a host's units are to listen on, by its inventory."""
    chosen = {"gcs": settings.get("ray_node_port"), **(settings.get("ray_node_ports") or {})}
    given = {"port": settings.get("vllm_server_port"), "ready_port": settings.get("vllm_server_ready_port")}
    try:
        ray = ports.RayPorts.parse({"ports": {name: port for name, port in chosen.items() if port is not None}})
        engine = ports.EnginePorts.parse({name: port for name, port in given.items() if port is not None})
    except ValueError as error:
        raise AnsibleActionFail(str(error)) from error
    return list(ports.listened_on(ray, engine, head))
