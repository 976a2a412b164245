"""The address that the routers share by keepalived: who has it first, who talks to whom, and what is wrong with it. Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator, Mapping

from .findings import Finding, refuse
from .observed import HostState
from .settings import Settings

FIRST_PRIORITY = 200
"""Of the first router; the next has one less. A router that cannot answer has 100 less than that, below any that can."""
MOST_ROUTERS = 50


@dataclasses.dataclass(frozen=True)
class Peers:
    """One router among those that share the address.

    Attributes:
        address: where it talks VRRP from.
        peers: the others, to which alone it talks.
        priority: the higher one of those that can answer has the address.
    """

    address: str
    peers: tuple[str, ...]
    priority: int


def peers(addresses: Mapping[str, str], router: str) -> Peers:
    """``router`` among the routers, each with its address, in the inventory's order.

    Raises:
        ValueError: there are not two at least, they are too many, or an address is none (VRRP takes no names).
    """
    if not 2 <= len(addresses) <= MOST_ROUTERS:
        raise ValueError(
            f"group router has {len(addresses)} hosts: 2 to {MOST_ROUTERS} can share vllm_haproxy_virtual_address"
        )
    for host, address in addresses.items():
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(
                f"{host} is reached at {address!r}, and VRRP takes addresses: set its vllm_haproxy_address"
            ) from None
    order = list(addresses)
    return Peers(
        addresses[router],
        tuple(address for host, address in addresses.items() if host != router),
        FIRST_PRIORITY - order.index(router),
    )


def findings(host: str, settings: Settings, addresses: Mapping[str, str], state: HostState | None) -> Iterator[Finding]:
    """What is wrong with the shared address on one router.

    Args:
        settings: its variables.
        addresses: of all routers, in the inventory's order.
        state: None where it did not answer.
    """
    shared = str(settings.get("vllm_haproxy_virtual_address") or "")
    if not shared:
        return
    interface = str(settings.get("vllm_haproxy_virtual_interface") or "")
    try:
        address = ipaddress.ip_interface(shared).ip
        peers(addresses, host)
    except ValueError as error:
        known = "vllm_haproxy" in str(error)
        yield refuse(
            str(error)
            if known
            else f"{host}: vllm_haproxy_virtual_address is {shared!r}: write 10.30.0.100 or 10.30.0.100/24"
        )
        return
    if str(address) in addresses.values():
        yield refuse(f"vllm_haproxy_virtual_address {address} is a router's own: choose one that no host has")
    if not interface:
        yield refuse(f"{host}: vllm_haproxy_virtual_interface is not set: name the interface that gets {address}")
    elif state is not None and state.networks is not None and interface not in state.networks:
        yield refuse(f"{host}: vllm_haproxy_virtual_interface {interface} is not there ({state.interfaces})")
