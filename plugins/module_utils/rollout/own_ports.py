"""Lockstep's own ports on one host: against each other, and against what the kernel gives to outgoing connections.

What else listens on them is in the probe's answer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from ..ray import ports
from . import endpoints, tunnel_request
from .findings import Finding, refuse, warn
from .observed import HostState
from .settings import Settings

_FIRST_FREE = 1024


def chosen(settings: Settings) -> tuple[ports.RayPorts, ports.EnginePorts]:
    """The ports of Ray and of the engine that a host's variables mean.

    Raises:
        ValueError: a name that is no port of Ray, or a port that is no number.
    """
    given = {"gcs": settings.get("ray_node_port"), **(settings.get("ray_node_ports") or {})}
    engine = {"port": settings.get("vllm_server_port"), "ready_port": settings.get("vllm_server_ready_port")}
    return (
        ports.RayPorts.parse({"ports": {name: port for name, port in given.items() if port is not None}}),
        ports.EnginePorts.parse({name: port for name, port in engine.items() if port is not None}),
    )


def of_router(settings: Settings) -> dict[str, range]:
    """HAProxy's ports, by the variable that moves each; empty on a host that is no router."""
    named = {"vllm_haproxy_stats_port": settings.get("vllm_haproxy_stats_port")}
    if endpoints.secure(settings):
        named["vllm_haproxy_tls_port"] = settings.get("vllm_haproxy_tls_port")
    if not endpoints.secure(settings) or settings.get("vllm_haproxy_tls_plain") != "closed":
        named["vllm_haproxy_api_port"] = settings.get("vllm_haproxy_api_port")
    if settings.get("vllm_haproxy_metrics_clients"):  # while nobody may read them, nothing listens
        named["vllm_haproxy_metrics_port"] = settings.get("vllm_haproxy_metrics_port")
    return {name: range(int(port), int(port) + 1) for name, port in sorted(named.items()) if port}


def findings(host: str, settings: Settings, head: bool, state: HostState | None) -> Iterator[Finding]:
    """What is wrong with the ports of one host of a replica.

    Args:
        settings: its variables.
        head: whether it is the head of its replica.
        state: None where it did not answer.
    """
    try:
        ray, engine = chosen(settings)
    except ValueError as error:
        yield refuse(f"{host}: {error}")
        return
    named = ports.named(ray, engine, head)
    carrier = tunnel_request.port(settings)
    if carrier is not None:
        named["ray_node_encryption_port"] = range(carrier, carrier + 1)
    for name, taken in named.items():
        if not taken:
            yield refuse(f"{host}: {name} is empty: its last port is before its first")
        elif not (_FIRST_FREE <= taken.start <= taken[-1] < 1 << 16):
            yield refuse(
                f"{host}: {name} is {_shown(taken)}: the user lockstep can listen on {_FIRST_FREE} to 65535 only"
            )
    yield from router_findings(host, settings, named, state)


def router_findings(
    host: str, settings: Settings, also: Mapping[str, range] | None = None, state: HostState | None = None
) -> Iterator[Finding]:
    """What is wrong with the ports of a router; with those that it has ``also`` where it is a host of a replica."""
    try:
        named = {**(also or {}), **of_router(settings)}
    except ValueError as error:
        yield refuse(f"{host}: {error}")
        return
    for client in settings.get("vllm_haproxy_metrics_clients") or ():
        try:
            ipaddress.ip_network(str(client), strict=False)
        except ValueError:
            yield refuse(f"{host}: vllm_haproxy_metrics_clients has {client!r}, which is no address and no network")
    for one, other, both in ports.clashes(named):
        yield refuse(f"{host}: {one} and {other} are both {_shown(both)}: choose another port for one of them")
    if state is not None:
        yield from _ephemeral(host, named, state)


def _ephemeral(host: str, named: Mapping[str, range], state: HostState) -> Iterator[Finding]:
    """Ours are outside of the kernel's default range; where a host widened it, a connection may hold one when we start."""
    machine = state.machine
    within = {
        name: taken
        for name, taken in named.items()
        if any(port not in machine.reserved for port in ports.shared(taken, machine.ephemeral))
    }
    if within:
        listed = ",".join(
            sorted({_shown(taken) for taken in within.values()}, key=lambda text: int(text.split("-")[0]))
        )
        yield warn(
            f"{host}: net.ipv4.ip_local_port_range ({machine.ephemeral.start} {machine.ephemeral[-1]}) holds ports of "
            f"Lockstep, which outgoing connections may then take ({', '.join(within)}); keep them free: "
            f"sysctl net.ipv4.ip_local_reserved_ports={listed}"
        )


def _shown(taken: range) -> str:
    if not taken:
        return f"{taken.start}-{taken.stop - 1}"
    return str(taken.start) if len(taken) == 1 else f"{taken.start}-{taken[-1]}"
