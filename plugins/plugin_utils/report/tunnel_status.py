"""What a status says of the tunnel between a replica's hosts: as each of them reports it, and in one line for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import names, span
from ansible_collections.lockstep.vllm.plugins.module_utils.host.state import HostState
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.tunnel import SILENT_AFTER
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.status_types import HostStatus


def wanted_or_not(part: Mapping[str, object]) -> str:
    """``on``, ``off`` where none is wanted, or ``wrong: `` and why; ``unknown`` where the host did not report it.

    Args:
        part: ``filter`` or ``tunnel`` of a host's state.
    """
    if problem := part.get("problem"):
        return f"wrong: {problem}"
    wanted = part.get("wanted")
    return "unknown" if wanted is None else "on" if wanted else "off"


def ages(state: HostState) -> dict[str, float | None]:
    """Seconds since each peer of a host shook hands last, by the host's own clock; None where it never did."""
    clock, found = state.get("clock"), (state.get("tunnel") or {}).get("handshakes") or {}
    return {peer: None if at is None or clock is None else max(clock - at, 0.0) for peer, at in found.items()}


def silence(state: HostState, peer: str) -> str:
    """That nothing can have passed between a host and its ``peer`` of late; empty where it can."""
    found = ages(state)
    if peer not in found:
        return ""
    age = found[peer]
    if age is None:
        return f"no handshake with {peer} through the tunnel yet"
    return f"no handshake with {peer} through the tunnel for {span(age)}" if age > SILENT_AFTER else ""


def line(hosts: Sequence[HostStatus]) -> str:
    """The tunnel of a replica; empty where its hosts are to have none, or none said."""
    on = [host for host in hosts if host["tunnel"] == "on"]
    if not on and not any(host["tunnel"].startswith("wrong") for host in hosts):
        return ""
    handshakes = [(host["host"], peer, age) for host in hosts for peer, age in host["tunnel_handshakes"].items()]
    known = sorted(age for _host, _peer, age in handshakes if age is not None)
    never = [f"{host} with {peer}" for host, peer, age in handshakes if age is None]
    parts = [f"up on {len(on)} of {len(hosts)} hosts"]
    if known:
        newest, oldest = span(known[0]), span(known[-1])
        parts.append(
            f"last handshakes {newest} ago" if newest == oldest else f"last handshakes {newest} to {oldest} ago"
        )
    if never:
        parts.append(f"no handshake yet: {names(never)}")
    return f"tunnel: {'; '.join(parts)}"
