"""WireGuard between the hosts of a replica: addresses, configuration, and whether what is there is what is wanted. Pure.

Every replica has a tunnel of its own, so all may use the same addresses inside. ``wg-quick`` makes the interface from the
configuration here; its private key lies beside that and in no other file.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Mapping, Sequence

from ..core.host_record import HostRecord, Tunnel
from ..core.wording import with_port

INTERFACE = "lockstep0"
UNIT = f"wg-quick@{INTERFACE}.service"
PORT = 6389
"""Beside Ray's, below the range that the kernel hands out, and not where a WireGuard of the host's own usually is."""
NETWORK = "198.18.0.0/24"
"""Of the range for tests of network devices (RFC 2544), which nobody routes."""
LEAST_MTU = 1360
"""Of what carries the tunnel, which takes 80 bytes of it (40 of IPv6, 8 of UDP, 32 of its own): IPv6 needs 1280."""
_KEY_BYTES = 32
SILENT_AFTER = 180.0
"""Seconds since a handshake after which its keys carry nothing more (WireGuard's Reject-After-Time); traffic makes a new one
after 120."""


class TunnelError(ValueError):
    """No tunnel can be made of what is given."""


def network(text: object) -> ipaddress.IPv4Network:
    """The network that ``ray_node_encryption_network`` means. Raises TunnelError."""
    try:
        return ipaddress.IPv4Network(str(text))
    except ValueError as error:
        raise TunnelError(f"ray_node_encryption_network: {error}; give one like {NETWORK}") from None


def addresses(inside: ipaddress.IPv4Network, head: str, hosts: Sequence[str]) -> dict[str, str]:
    """The address of every host in its replica's tunnel: the head's is the first, the others follow by name.

    Raises:
        TunnelError: the network has fewer.
    """
    ordered = [head, *sorted(host for host in hosts if host != head)]
    free = inside.num_addresses - 2
    if len(ordered) > free:
        raise TunnelError(
            f"ray_node_encryption_network: {inside} has {max(free, 0)} addresses, the replica {len(ordered)} hosts"
        )
    return {host: str(inside[at]) for at, host in enumerate(ordered, 1)}


def record(identity: HostRecord, inside: ipaddress.IPv4Network, port: int) -> Tunnel:
    """The content of tunnel.json on a host.

    Args:
        identity: its record without a tunnel.
        inside: the tunnel's network.
        port: UDP, on the interface that carries it.
    """
    peers = addresses(inside, identity["head"]["host"], list(identity["peers"]))
    return {"interface": INTERFACE, "address": peers[identity["host"]], "port": port, "peers": peers}


def configuration(identity: HostRecord, made: Tunnel, inside: ipaddress.IPv4Network, keys: Mapping[str, str]) -> str:
    """What ``wg-quick`` reads. The private key is no part of it: it stays in its file, which ``wg`` alone opens.

    Args:
        identity: the host's record without a tunnel.
        made: its tunnel.json.
        inside: the tunnel's network.
        keys: public key by host, of all hosts of the replica.

    Raises:
        TunnelError: a host's public key is missing, or is none.
    """
    own = identity["host"]
    lines = [
        "# Written by Lockstep (role ray_node).",
        "[Interface]",
        f"Address = {made['address']}/{inside.prefixlen}",
        f"ListenPort = {made['port']}",
        "PostUp = wg set %i private-key /etc/wireguard/%i.key",
    ]
    for host in sorted(made["peers"]):
        if host != own:
            lines += [
                "",
                f"# {host}",
                "[Peer]",
                f"PublicKey = {public_key(host, keys.get(host))}",
                f"AllowedIPs = {made['peers'][host]}/32",
                f"Endpoint = {with_port(identity['peers'][host], made['port'])}",
            ]
    return "\n".join([*lines, ""])


def public_key(host: str, key: object) -> str:
    """A host's public key, looked at: it becomes a line of a file that root's programs read. Raises TunnelError."""
    try:
        if isinstance(key, str) and len(base64.b64decode(key, validate=True)) == _KEY_BYTES:
            return key
    except (binascii.Error, ValueError):
        pass
    raise TunnelError(f"the public key of {host} is not known: configure all hosts of the replica in one run")


def difference(wanted: str, shown: str | None, own_addresses: Sequence[str]) -> str:
    """Why the tunnel in the kernel is not the one in its configuration; "" where it is.

    Args:
        wanted: the text of the configuration.
        shown: what ``wg show INTERFACE allowed-ips`` prints; None where there is no such interface.
        own_addresses: of the interface.
    """
    if shown is None:
        return f"{INTERFACE} is not up"
    lines = [line.partition(" = ") for line in wanted.splitlines()]
    given = {name: [value for key, _, value in lines if key == name] for name in ("Address", "PublicKey", "AllowedIPs")}
    if [one.partition("/")[0] for one in given["Address"]] != list(own_addresses):
        return f"{INTERFACE} has {', '.join(own_addresses) or 'no address'}, not {', '.join(given['Address'])}"
    if set(_pairs(shown)) != set(zip(given["PublicKey"], given["AllowedIPs"], strict=True)):
        return f"{INTERFACE} knows other hosts than its configuration"
    return ""


def handshakes(addresses_inside: Mapping[str, str], allowed: str, latest: str) -> dict[str, int | None]:
    """When each peer shook hands last, by host: Unix seconds; None where it never did since the interface is up.

    Args:
        addresses_inside: address in the tunnel by host, as in tunnel.json.
        allowed: what ``wg show INTERFACE allowed-ips`` prints.
        latest: what ``wg show INTERFACE latest-handshakes`` prints.
    """
    hosts = {f"{address}/32": host for host, address in addresses_inside.items()}
    of_key = {key: hosts[inside] for key, inside in _pairs(allowed) if inside in hosts}
    at = {of_key[key]: int(seconds) or None for key, seconds in _pairs(latest) if key in of_key and seconds.isdecimal()}
    return {host: at.get(host) for host in of_key.values()}


def _pairs(shown: str) -> list[tuple[str, str]]:
    """The lines of what ``wg show`` prints of each peer: its key, a tabulator, a value."""
    return [(key, value) for key, _, value in (line.partition("\t") for line in shown.splitlines())]
