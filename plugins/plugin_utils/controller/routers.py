"""The routers of the inventory, as the replicas' hosts see them."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, settings, stops

GROUP = "router"
VARIABLES = ("vllm_haproxy_address", "ansible_host")


def declared_addresses(templar: Any, task_vars: Mapping[str, Any]) -> dict[str, str]:
    """Where each router's requests come from, by router: vllm_haproxy_address, else ansible_host, else its name."""
    hosts = task_vars["groups"].get(GROUP, ())
    found = {}
    for host in hosts:
        raw = ansible_internals.raw_variables(task_vars["hostvars"], host)
        set_there = settings.resolve(templar, raw, {}, VARIABLES)
        found[host] = str(next((set_there[name] for name in VARIABLES if set_there.get(name)), host))
    return found


def resolved(declared: Mapping[str, str]) -> list[str]:
    """The addresses, names looked up on the controller; sorted.

    Raises:
        AnsibleActionFail: a name means no address.
    """
    return sorted({address for router, where in declared.items() for address in _addresses(router, where)})


def _addresses(router: str, where: str) -> set[str]:
    try:
        return {str(ipaddress.ip_address(where))}
    except ValueError:
        pass
    try:
        return {str(item[4][0]) for item in socket.getaddrinfo(where, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        cause = f"{router}: {where} has no address here ({error}), and the packet filter has to let it in"
        raise stops.fail(Stop(f"{cause}: set vllm_haproxy_address of {router}")) from error
