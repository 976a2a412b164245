"""What runs or serves and is not wanted by the inventory: a host or a replica went without ``remove.yml``. Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ..core.codes import Code
from ..core.systemd import RUNNING
from ..core.typed import part
from ..core.wording import names, printable
from .topology import Replica

State = Mapping[str, Any]
"""A host's answer to a probe, looked at (module_utils/host/answer.py); any part may be missing or only an error."""

_ENGINE = "lockstep-vllm.service"
_SERVING = ("lockstep-ray.service", _ENGINE)
_HAPROXY = "haproxy.service"
_REMOVE = "ansible-playbook playbooks/remove.yml"
_NAME = re.compile(r"[A-Za-z0-9]([\w.-]{0,100}\w)?")
"""Names that may stand in a command: a host or a router that is lost may have made up any other."""


class UnexpectedCode(Code):
    """What is there and should not be."""

    RAY_NODE = "ray_node"
    """A living node of a replica's Ray cluster that is no host of that replica, or has another address."""
    ROUTER_SERVER = "router_server"
    """A server in HAProxy's runtime state that is no replica of the inventory, or has another address."""
    OTHER_REPLICA = "other_replica"
    """A host whose own record names another replica than the inventory, and that runs."""
    ENGINE_OFF_HEAD = "engine_off_head"
    """An engine's unit runs on a host that is no head."""
    NO_REPLICA = "no_replica"
    """A host of the inventory that is in no replica runs Lockstep's units, or starts them at boot."""
    NO_ROUTER = "no_router"
    """HAProxy runs as Lockstep configured it, on a host that is not in group router."""


@dataclasses.dataclass(frozen=True)
class Unexpected:
    """One thing that the inventory does not want.

    Attributes:
        code: what kind of thing.
        name: of the host or the replica.
        seen_on: the host that shows it.
        serving: whether it may be sent requests, or holds a replica's GPUs, at this moment.
        cause: for people; names all of the above.
        next: the next command to type; empty where ``name`` cannot stand in one.
    """

    code: UnexpectedCode
    name: str
    seen_on: str
    serving: bool
    cause: str
    next: str


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the inventory wants.

    Attributes:
        replicas: all of them.
        routers: router to its servers, name to address.
        known: names of all hosts and groups of the inventory: what another host says makes no command to remove one of them.
    """

    replicas: Sequence[Replica]
    routers: Mapping[str, Mapping[str, str]]
    known: Collection[str] = ()


def find(wanted: Wanted, states: Mapping[str, State]) -> tuple[Unexpected, ...]:
    """All that is not wanted, of the hosts that have answered; hosts of no replica and no router may be among them."""
    replica_of = {host: replica for replica in wanted.replicas for host in replica.hosts}
    found: list[Unexpected] = []
    for replica in wanted.replicas:
        found += _ray_nodes(replica, states.get(replica.head, {}), wanted.known)
    for host, state in states.items():
        known = replica_of.get(host)
        found += _units(host, state) if known is None else _member(host, known, state)
        if host in wanted.routers:
            found += _servers(host, wanted.routers[host], state, wanted.known)
        elif "vllm_haproxy" in part(state, "manifest") and _active(state, _HAPROXY):
            cause = f"HAProxy runs on {host} as Lockstep configured it, and {host} is not in group router"
            following = (
                f'ansible {host} -b -m ansible.builtin.systemd_service -a "name={_HAPROXY} state=stopped enabled=false"'
            )
            found.append(Unexpected(UnexpectedCode.NO_ROUTER, host, host, True, cause, following))
    return tuple(found)


def _ray_nodes(replica: Replica, head: State, known: Collection[str]) -> Iterator[Unexpected]:
    """A tunnel's addresses are not the inventory's, so only names count there."""
    tunnelled = part(head, "tunnel").get("wanted") is True
    for node in part(head, "ray").get("nodes") or ():
        host, address = str(node.get("host") or ""), str(node.get("address") or "")
        declared = replica.addresses.get(host)
        if not node.get("alive") or (declared and (tunnelled or address in ("", declared))):
            continue
        following = f"ansible-playbook playbooks/diagnose.yml --limit {replica.name}"
        if declared:
            what = f"{host} has joined Ray of {replica.name} as {address}, and its address is {declared}"
        elif host:
            what = f"{host} ({address}) is in Ray of {replica.name}, and the inventory does not have it there"
            if host not in known:
                following = f"{_REMOVE} -i {host}, --limit {host}" if _NAME.fullmatch(host) else ""
        else:
            what = f"{address} is in Ray of {replica.name}, and was not started by Lockstep"
            if address not in known:
                stop = f"ansible {address} -b -m ansible.builtin.command -a 'ray stop' -i {address},"
                following = stop if _is_address(address) else ""
        yield Unexpected(
            UnexpectedCode.RAY_NODE, printable(host or address), replica.head, True, printable(what), following
        )


def _servers(router: str, servers: Mapping[str, str], state: State, known: Collection[str]) -> Iterator[Unexpected]:
    for name, server in (part(state, "router").get("servers") or {}).items():
        address, up = str(server.get("address") or "").rpartition(":")[0], server.get("up") is True
        if name in servers and address in ("", servers[name]):
            continue
        what = f"HAProxy on {router} has {name} ({address or 'no address'}, {server.get('status') or '?'})"
        following = "ansible-playbook site.yml"
        if name in servers:
            what += f", and the inventory has it at {servers[name]}"
        elif up:
            what += ", which the inventory does not have: its hosts serve on. Declare them again, then remove them"
            if name not in known:
                following = f"{_REMOVE} --limit {name}" if _NAME.fullmatch(name) else ""
        else:
            what += ", which the inventory does not have"
        yield Unexpected(UnexpectedCode.ROUTER_SERVER, printable(name), router, up, printable(what), following)


def _member(host: str, replica: Replica, state: State) -> Iterator[Unexpected]:
    """A host that serves by what it was before it came into this replica."""
    running = [unit for unit in _SERVING if _active(state, unit)]
    before = part(state, "host").get("replica")
    again = f"{_REMOVE} --limit {replica.name}"
    if running and before and before != replica.name:
        cause = (
            f"{host} is in {replica.name}, and runs {names(running)} as a host of {before}, by its own record. "
            f"Remove {replica.name}, then run site.yml"
        )
        yield Unexpected(UnexpectedCode.OTHER_REPLICA, host, host, True, printable(cause), again)
    elif _ENGINE in running and host != replica.head:
        head = f"the head of {replica.name} is {replica.head}"
        cause = f"{host} runs {_ENGINE}, and {head}. Remove {replica.name}, then run site.yml"
        yield Unexpected(UnexpectedCode.ENGINE_OFF_HEAD, host, host, True, cause, again)


def _units(host: str, state: State) -> Iterator[Unexpected]:
    running = [unit for unit in _SERVING if _active(state, unit)]
    at_boot = [
        unit
        for unit in _SERVING
        if part(part(state, "units"), unit).get("enabled") == "enabled" and unit not in running
    ]
    if not running and not at_boot:
        return
    replica = part(state, "host").get("replica")
    does = " and ".join(
        f"{names(units)} {verb}" for units, verb in ((running, "active"), (at_boot, "enabled")) if units
    )
    by_record = f" for {replica}, by its own record" if replica else ""
    cause = f"{host} is in no replica of the inventory, and has {does}{by_record}"
    following = f"{_REMOVE} --limit {host}"
    yield Unexpected(UnexpectedCode.NO_REPLICA, host, host, bool(running), printable(cause), following)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _active(state: State, unit: str) -> bool:
    return part(part(state, "units"), unit).get("active") in RUNNING
