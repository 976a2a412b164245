"""The tunnel that a replica asks for (``ray_node_encryption``) against its hosts, and what no filter or tunnel covers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..ray import tunnel
from .findings import Finding, refuse, warn
from .observed import HostState
from .settings import Settings
from .topology import Replica

_TUNNELS = ("ray_node_encryption", "ray_node_encryption_network", "ray_node_encryption_port")


def port(settings: Settings) -> int | None:
    """The UDP port of the tunnel that a host's variables ask for; None where they ask for none."""
    try:
        return int(settings.get("ray_node_encryption_port") or tunnel.PORT) if _wanted(settings) else None
    except (TypeError, ValueError):
        return None  # variables are held against their specs elsewhere


def _wanted(settings: Settings) -> bool:
    return settings.get("ray_node_encryption") == "wireguard"


def findings(replica: Replica, settings: Mapping[str, Settings], states: Mapping[str, HostState]) -> Iterator[Finding]:
    """What is wrong with it.

    Args:
        settings: the variables of every host of the replica.
        states: of the hosts that answered.
    """
    yield from _rdma(replica, settings, states)
    if not any(map(_wanted, settings.values())):
        return
    unlike = [name for name in _TUNNELS if len({str(mine.get(name)) for mine in settings.values()}) > 1]
    if unlike:
        yield refuse(
            f"{replica.name}: {', '.join(unlike)} differs among its hosts, which then do not reach each other: "
            "set it for the group"
        )
        return
    try:
        inside = tunnel.network(settings[replica.head].get("ray_node_encryption_network"))
        tunnel.addresses(inside, replica.head, replica.hosts)
    except tunnel.TunnelError as error:
        yield refuse(f"{replica.name}: {error}")
        return
    for host, mine in settings.items():
        if not mine.get("gpu_host_filter"):
            yield refuse(
                f"{host}: ray_node_encryption without gpu_host_filter: what Ray and vLLM listen on would be open beside the "
                "tunnel; set gpu_host_filter: true"
            )
    for host, state in states.items():
        overlapping = sorted(
            f"{each.network} ({name})"
            for name, found in (state.networks or {}).items()
            for each in found
            if name != tunnel.INTERFACE and each.network.overlaps(inside)
        )
        if overlapping:
            yield refuse(
                f"{host}: the tunnel's {inside} overlaps {', '.join(overlapping)}: set ray_node_encryption_network"
            )
        yield from _carrier(host, settings[host], state)


def _carrier(host: str, settings: Settings, state: HostState) -> Iterator[Finding]:
    found, interface = state.preflight.carrier, str(settings.get("gpu_host_interface"))
    if found is None:
        return
    if not found.wireguard:
        yield refuse(
            f"{host}: its kernel {state.kernel} has no WireGuard, and there is no /dev/net/tun for wireguard-go",
            f"ansible {host} -b -m ansible.builtin.command -a 'modprobe tun'",
        )
    if found.port_taken and not state.tunnelled:
        yield refuse(
            f"{host}: something listens on UDP {port(settings)}: set ray_node_encryption_port of its replica to another",
            f"ansible {host} -b -m ansible.builtin.command -a 'ss -lunp'",
        )
    mtu = found.mtu.get(interface)
    if mtu is not None and mtu < tunnel.LEAST_MTU:
        yield refuse(
            f"{host}: {interface} has an MTU of {mtu}; the tunnel in it takes 80 bytes, and needs {tunnel.LEAST_MTU} or more"
        )


def _rdma(replica: Replica, settings: Mapping[str, Settings], states: Mapping[str, HostState]) -> Iterator[Finding]:
    active = {host: state.machine.rdma for host, state in states.items() if state.machine.rdma}
    relied_on = [
        what
        for what, on in (
            ("the packet filter", any(mine.get("gpu_host_filter") for mine in settings.values())),
            ("ray_node_encryption", any(map(_wanted, settings.values()))),
        )
        if on
    ]
    if len(replica.hosts) > 1 and active and relied_on:
        listed = "; ".join(f"{host} ({', '.join(devices)})" for host, devices in active.items())
        yield warn(
            f"{replica.name} has RDMA between its hosts, {listed}: {' and '.join(relied_on)} neither filters nor encrypts it. "
            "Keep that fabric to the replica (partition keys, VLANs)"
        )
