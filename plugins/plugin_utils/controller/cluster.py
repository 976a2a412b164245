"""The cluster as the inventory declares it and as its hosts answer, for the actions that reach all hosts at once."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

from ansible.errors import AnsibleActionFail

from ansible_collections.lockstep.vllm.plugins.module_utils.core import wording
from ansible_collections.lockstep.vllm.plugins.module_utils.core.grouping import grouped
from ansible_collections.lockstep.vllm.plugins.module_utils.core.typed import BadAnswer
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import config as engine_config
from ansible_collections.lockstep.vllm.plugins.module_utils.host import answer as host_answer
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import ports
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import (
    model_request,
    own_ports,
    topology,
    tunnel_request,
    unexpected,
)
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.needs import Desired
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.settings import Settings
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import (
    ansible_internals,
    certificates,
    fleet,
    routers,
    settings,
)
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.action import Action, Values
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import (
    ANSWER_LIMIT,
    Answer,
    ConnectionVariables,
    Fleet,
    bad,
    program,
)

_FEW = 4


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The inventory, resolved.

    Attributes:
        topology: its replicas, or what is wrong with it.
        wanted: what it wants of each host of a replica, and of each router.
        routers: the hosts of group ``router``.
        names: of all hosts and groups of the inventory.
        faults: why variables have no value, for people; what depends on these is not in ``wanted``.
    """

    topology: topology.Topology
    wanted: Mapping[str, Desired]
    routers: tuple[str, ...]
    names: frozenset[str] = frozenset()
    faults: tuple[str, ...] = ()

    def unexpected(self, answers: Mapping[str, Answer]) -> tuple[unexpected.Unexpected, ...]:
        """What runs or serves and is not wanted, by the hosts that have answered."""
        heads = {replica.name: replica.addresses[replica.head] for replica in self.topology.replicas}
        servers = {host: _servers(self.wanted[host], heads) for host in self.routers if host in self.wanted}
        states = {host: answer.value for host, answer in answers.items() if answer.value}
        return unexpected.find(unexpected.Wanted(self.topology.replicas, servers, self.names), states)

    def of(self, hosts: Collection[str]) -> Cluster:
        """What ``hosts`` are a part of: whole replicas, and routers. All of it where that is nothing."""
        replicas = tuple(replica for replica in self.topology.replicas if not set(replica.hosts).isdisjoint(hosts))
        routers = tuple(host for host in self.routers if host in hosts)
        if not replicas and not routers:
            return self
        left = {*routers, *(host for replica in replicas for host in replica.hosts)}
        wanted = {host: mine for host, mine in self.wanted.items() if host in left}
        topology_left = dataclasses.replace(self.topology, replicas=replicas)
        return dataclasses.replace(self, topology=topology_left, wanted=wanted, routers=routers)

    def probed(self, answers: Mapping[str, Answer]) -> Values:
        """JSON of the replicas, the routers, and what each host answered: ``status_types.Probe``."""
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


class ClusterAction(Action):
    """Base of the actions that read the whole inventory; they run once per task unless they say otherwise."""

    BYPASS_HOST_LOOP = True

    def declared(
        self,
        task_vars: Values,
        only: str | None = None,
        over: Values | None = None,
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
        roles = dict.fromkeys(groups.get(topology.ROOT, ()), settings.HOST_ROLES)
        roles |= {host: (*roles.get(host, ()), *settings.ROUTER_ROLES) for host in groups.get(routers.GROUP, ())}
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

    def topology(self, task_vars: Values, declared: Mapping[str, settings.Declared]) -> topology.Topology:
        """The inventory's replicas; what places a host is taken from what is ``declared`` where that has it."""
        groups, hostvars = task_vars["groups"], task_vars["hostvars"]
        hosts = set(groups.get(topology.ROOT, ()))
        default = settings.defaults(self._loader)
        placed = {
            host: cast(Settings, declared[host].values)
            if host in declared and set(settings.HOST_ROLES) <= set(declared[host].roles)
            else cast(
                Settings,
                settings.resolve(
                    self._templar,
                    ansible_internals.raw_variables(hostvars, host),
                    default if host in hosts else {},
                    topology.VARIABLES,
                ),
            )
            for host in groups["all"]
        }
        return topology.read(groups, ansible_internals.child_groups(hostvars, topology.ROOT), placed)

    def cluster(
        self,
        task_vars: Values,
        only: str | None = None,
        over: Values | None = None,
        declared: Mapping[str, settings.Declared] | None = None,
        strict: bool = True,
    ) -> Cluster:
        """Read the inventory; with ``only``, what is wanted of that one host alone, with the variables ``over`` its own.

        Its problems are in ``topology.problems``. Templates that fail raise an error that names host and variable, unless the
        caller has read what is ``declared`` itself and answers for it, or, not ``strict``, only looks.
        """
        before_them = tuple(task_vars["groups"].get(routers.GROUP, ()))
        mine = self.declared(task_vars, only, over) if declared is None else declared
        read = self.topology(task_vars, mine)
        faults = _faults(mine)
        if faults and strict and declared is None and not read.problems:
            raise AnsibleActionFail("\n".join(faults))
        also = {"gpu_host": routers.declared_addresses(self._templar, task_vars)} if read.replicas else {}
        wanted: dict[str, Desired] = {}
        for replica in read.replicas:
            context = {"replica": replica.name, "head": replica.head, "peers": dict(replica.addresses)}
            for host in replica.hosts:
                if host in mine:
                    wanted[host] = self._wanted(mine[host], settings.HOST_ROLES, context, also, host == replica.head)
        everything = {replica.name: dict(replica.addresses) for replica in read.replicas}
        for host in before_them if read.replicas else ():
            if host in mine:
                # Its files may change under their paths.
                certificate = certificates.digest(
                    cast(Settings, mine[host].values), self._loader.get_text_file_contents
                )
                reads: dict[str, object] = {"certificate": certificate} if certificate else {}
                if mine[host].values.get("vllm_haproxy_virtual_address"):
                    reads["routers"] = list(routers.declared_addresses(self._templar, task_vars).items())
                of_router = self._wanted(mine[host], settings.ROUTER_ROLES, everything, {"vllm_haproxy": reads})
                wanted[host] = _both(wanted[host], of_router) if host in wanted else of_router
        groups = task_vars["groups"]
        return Cluster(read, wanted, before_them, frozenset({*groups, *groups["all"]}), faults)

    def probe(self, cluster: Cluster, task_vars: Values, **parameters: Any) -> dict[str, Answer]:
        """Read every host's state, all at once; ``parameters`` go to ``host.probe.collect``."""
        answers = self._fleet(task_vars).run_read_only(
            (
                host,
                program(
                    "host.probe",
                    "collect",
                    {**parameters, "inputs": dict(wanted.inputs), **_questions(cluster, host, wanted)},
                ),
                self._connection_variables(host, task_vars),
            )
            for host, wanted in cluster.wanted.items()
        )
        return {host: let_in(answer) for host, answer in answers.items()}

    def ask_each(
        self, module: str, function: str, requests: Mapping[str, object], task_vars: Values
    ) -> dict[str, Answer]:
        """Call one read-only function of the library on every host of ``requests``, all at once, each with its request."""
        return self._fleet(task_vars).run_read_only(
            (host, program(module, function, request), self._connection_variables(host, task_vars))
            for host, request in requests.items()
        )

    def run_on(
        self, hosts: Iterable[str], text: str, task_vars: Values, limit: int = ANSWER_LIMIT
    ) -> dict[str, Answer]:
        """Run one program on each of ``hosts``, all at once; ``limit`` is how many bytes each may answer."""
        connections = {host: self._connection_variables(host, task_vars) for host in hosts}
        return self._fleet(task_vars, limit).run(dict.fromkeys(connections, text), connections)

    def _fleet(self, task_vars: Values, limit: int = ANSWER_LIMIT) -> Fleet:
        forks = int(task_vars.get("ansible_forks", 5))
        return Fleet(self._play_context, bool(self._task.become), forks, limit=limit)

    def _connection_variables(self, host: str, task_vars: Values) -> ConnectionVariables:
        return settings.connection(self._templar, ansible_internals.raw_variables(task_vars["hostvars"], host))

    def _wanted(
        self,
        declared: settings.Declared,
        roles: tuple[str, ...],
        context: Mapping[str, object],
        also: Mapping[str, Mapping[str, object]] | None = None,
        head: bool = False,
    ) -> Desired:
        """``context`` is what every role reads of the topology; ``also``, by role, what that one reads besides."""
        values = declared.values
        mine = cast(Settings, values)  # held against the specs before anything is decided by them
        extra = {role: {"also": read} for role, read in (also or {}).items()}
        inputs = {role: settings.role_inputs(role, values, {**context, **extra.get(role, {})}) for role in roles}
        if roles != settings.HOST_ROLES:
            return Desired(mine, inputs)
        lock = settings.lock(values.get("serving_runtime_lock"))
        engine = None
        unknown = declared.faults.keys() & {*settings.public_variables("vllm_server")}
        if head and values.get("vllm_server_model") and not unknown:
            engine = settings.engine_record(self._templar, self._loader, values)
        return Desired(mine, inputs, lock.promises, engine, settings.environment_problem(lock, values))

    def unresolved(self, hosts: Iterable[str], task_vars: Values) -> list[tuple[str, str]]:
        """Of ``hosts``, those whose name (``ansible_host``, else their own) means no address on this controller, with it."""
        names = {host: str(self._connection_variables(host, task_vars).get("ansible_host", host)) for host in hosts}
        without = fleet.unresolved(names.values())
        return [(host, name) for host, name in names.items() if name in without]


def _faults(declared: Mapping[str, settings.Declared]) -> tuple[str, ...]:
    """A line for each reason why templates fail, with its variables and hosts."""
    mine = grouped(((host, why), name) for host, each in declared.items() for name, why in each.faults.items())
    alike = grouped(((tuple(variables), why), host) for (host, why), variables in mine.items())
    return tuple(
        f"{wording.names(hosts, _FEW)}: {wording.names(variables, _FEW)} cannot be templated: {why}"
        for (variables, why), hosts in alike.items()
    )


def _servers(router: Desired, heads: Mapping[str, str]) -> Mapping[str, str]:
    """The servers of a router, name to address: the replicas of the inventory, or what is set for it by hand."""
    by_hand = router.settings.get("vllm_haproxy_replicas") or ()
    return {str(each["name"]): str(each["address"]) for each in by_hand} or heads


def _both(host: Desired, router: Desired) -> Desired:
    """What is wanted of a host that is in a replica and a router too."""
    return dataclasses.replace(
        host, settings={**router.settings, **host.settings}, inputs={**router.inputs, **host.inputs}
    )


def let_in(answer: Answer) -> Answer:
    """The answer to a probe, looked at (module_utils/host/answer.py); one that is none is its host's failure."""
    if answer.code is not None:
        return answer
    try:
        return dataclasses.replace(answer, value=host_answer.read(answer.value))
    except BadAnswer as error:
        return bad(error)


def _questions(cluster: Cluster, host: str, wanted: Desired) -> Values:
    mine = wanted.settings
    of_router = [port.start for port in own_ports.of_router(mine).values()] if host in cluster.routers else []
    if not any(host in replica.hosts for replica in cluster.topology.replicas):
        return {"ports": of_router}
    replica = cluster.topology.replica_of(host)
    return {
        "ports": [*_ports(mine, host == replica.head), *of_router],
        "model": _model(cluster.wanted.get(replica.head)),
        **({"api_keys": _key_digests(mine)} if host == replica.head else {}),
        "peers": dict(replica.addresses),
        "tunnel": tunnel_request.port(mine),
    }


def _ports(settings: Settings, head: bool) -> list[int]:
    """The ports that a host's units are to listen on, by its inventory."""
    try:
        ray, engine = own_ports.chosen(settings)
    except ValueError:
        return []  # the plan says what is wrong with them
    return list(ports.listened_on(ray, engine, head))


def _key_digests(settings: Settings) -> list[str]:
    """SHA-256 of each key that clients may send: a host is asked whether its own is among them, and is sent no key for that."""
    keys = (settings.get("vllm_server_api_key"), *(settings.get("vllm_server_api_keys_previous") or ()))
    return [hashlib.sha256(str(key).encode()).hexdigest() for key in keys if key]


def _model(head: Desired | None) -> str | None:
    """The path of the replica's model, where there is one that hosts can be asked about."""
    config, _problems = engine_config.examine(dict(head.engine)) if head and head.engine else (None, ())
    return None if config is None else model_request.path_asked_for(config)
