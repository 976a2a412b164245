"""The cluster as the inventory declares it and as its hosts answer, for the actions that reach all hosts at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.lockstep.vllm.plugins.module_utils.core.shapes import BadAnswer
from ansible_collections.lockstep.vllm.plugins.module_utils.host import answer as host_answer
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import ports
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.needs import Desired
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, settings
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import (
    ANSWER_LIMIT,
    Answer,
    ConnectionVariables,
    Fleet,
    bad,
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
                host: {
                    "reachable": answer.reachable,
                    "error": answer.error,
                    "code": None if answer.code is None else answer.code.value,
                    "state": answer.value,
                }
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
                self._templar,
                ansible_internals.raw_variables(hostvars, host),
                default if host in declared else {},
                topology.VARIABLES,
            )
            for host in groups["all"]
        }
        read = topology.read(groups, ansible_internals.child_groups(hostvars, topology.ROOT), placed)
        wanted: dict[str, Desired] = {}
        for replica in read.replicas:
            context = {"replica": replica.name, "head": replica.head, "peers": dict(replica.addresses)}
            for host in replica.hosts:
                if only in (None, host):
                    wanted[host] = self._wanted(
                        {**ansible_internals.raw_variables(hostvars, host), **(over or {})},
                        settings.HOST_ROLES,
                        context,
                    )
        everything = {replica.name: dict(replica.addresses) for replica in read.replicas}
        for host in routers if read.replicas else ():
            if only in (None, host):
                wanted[host] = self._wanted(
                    ansible_internals.raw_variables(hostvars, host), settings.ROUTER_ROLES, everything
                )
        return Cluster(read, wanted, routers)

    def probe(self, cluster: Cluster, task_vars: Mapping[str, Any], **parameters: Any) -> dict[str, Answer]:
        """Read every host's state, all at once; ``parameters`` go to ``host.probe.collect``."""
        answers = self._fleet(task_vars).run_read_only(
            (
                host,
                program("host.probe", "collect", {**parameters, **_questions(cluster, host, wanted)}),
                self._connection_variables(host, task_vars),
            )
            for host, wanted in cluster.wanted.items()
        )
        return {host: let_in(answer) for host, answer in answers.items()}

    def run_on(
        self, hosts: Iterable[str], text: str, task_vars: Mapping[str, Any], limit: int = ANSWER_LIMIT
    ) -> dict[str, Answer]:
        """Run one program on each of ``hosts``, all at once; ``limit`` is how many bytes each may answer."""
        connections = {host: self._connection_variables(host, task_vars) for host in hosts}
        return self._fleet(task_vars, limit).run(dict.fromkeys(connections, text), connections)

    def _fleet(self, task_vars: Mapping[str, Any], limit: int = ANSWER_LIMIT) -> Fleet:
        forks = int(task_vars.get("ansible_forks", 5))
        return Fleet(self._play_context, bool(self._task.become), forks, limit=limit)

    def _connection_variables(self, host: str, task_vars: Mapping[str, Any]) -> ConnectionVariables:
        return settings.connection(self._templar, ansible_internals.raw_variables(task_vars["hostvars"], host))

    def _wanted(self, raw: Mapping[str, Any], roles: tuple[str, ...], context: Mapping[str, Any]) -> Desired:
        names = sorted({name for role in roles for name in settings.public_variables(role)})
        mine = settings.resolve(self._templar, raw, settings.defaults(self._loader, roles), names)
        inputs = {role: settings.role_inputs(role, mine, context) for role in roles}
        return Desired(mine, inputs, settings.promised_runtime(mine.get("serving_runtime_lock")))


def let_in(answer: Answer) -> Answer:
    """The answer to a probe, looked at (module_utils/host/answer.py); one that is none is its host's failure."""
    if answer.code is not None:
        return answer
    try:
        return dataclasses.replace(answer, value=host_answer.read(answer.value))
    except BadAnswer as error:
        return bad(error)


def _questions(cluster: Cluster, host: str, wanted: Desired) -> dict[str, Any]:
    if host in cluster.routers:
        return {}
    mine = wanted.settings
    replica = cluster.topology.replica_of(host)
    repository = mine.get("nvidia_driver_repository_url")
    return {
        "ports": _ports(mine, host == replica.head),
        "peers": dict(replica.addresses),
        "driver": {
            "version": mine.get("nvidia_driver_version"),
            "source": mine.get("nvidia_driver_source"),
            "flavor": mine.get("nvidia_driver_flavor"),
            "fabric_manager": mine.get("nvidia_driver_fabric_manager") == "present",
            "repository_url": repository if mine.get("nvidia_driver_source") in ("nvidia", "mirror") else None,
        },
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
