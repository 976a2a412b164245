"""The packet filter's rules: what Ray, vLLM and the gates listen on is open to the hosts of the replica alone.

Ray listens on every address of a host; vLLM, torch, NCCL and Gloo take whatever port the kernel hands out, and answer whoever
asks. So the whole range that it hands out is closed to others than the replica's hosts, with every fixed port of ours.
One table of nftables does it; all other ports, and all other rules, stay as they are. Pure; ``firewall_live`` loads it.

Where the hosts talk through a tunnel, they are let in from it alone. What carries it has one UDP port open for them, and what
is meant for the tunnel leaves through nothing else, also while there is no tunnel.

What goes out is everybody's business but one's: where ``egress`` says so, what runs as the user who serves begins connections
to the hosts of its replica and to the networks named there, and to nobody else.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from ..core.host_record import HostRecord
from .ports import EnginePorts, RayPorts, closed

if TYPE_CHECKING:
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Protocol = Literal["tcp", "udp"]
PROTOCOLS: tuple[Protocol, ...] = ("tcp", "udp")
CONTROLLER = "controller"
"""In a list of clients: whoever configures this host."""
USER = "lockstep"
"""As whom Ray, vLLM, the gates' ranks and the staging of models run."""
ANY = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


@dataclasses.dataclass(frozen=True)
class Opening:
    """Ports that others may reach although they lie among those that are closed: another service of the host."""

    protocol: Protocol
    ports: range
    sources: tuple[Network, ...]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Who may reach what, besides the hosts of the replica: ``filter.json``.

    Attributes:
        clients: who may reach the API and the readiness answer on the head: named clients, routers, the controller.
        ssh_port: where the controller reached this host; open to all, whatever range it lies in.
        openings: for other services of this host.
        egress: to whom ``USER`` may begin connections, besides the hosts of the replica; None for everybody.
    """

    clients: tuple[Network, ...] = ()
    ssh_port: int | None = None
    openings: tuple[Opening, ...] = ()
    egress: tuple[Network, ...] | None = None

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Settings:
        """From JSON. Raises ValueError, naming the entry, for one that means no network, protocol or ports."""
        port, egress = record.get("ssh_port"), record.get("egress")
        return cls(
            _all(record.get("clients", ())),
            None if port is None else int(port),
            tuple(map(opening, record.get("open", ()))),
            None if egress is None else _all(egress),
        )


def _all(entries: Iterable[object]) -> tuple[Network, ...]:
    return tuple(network for entry in entries for network in networks(entry))


def networks(entry: object) -> tuple[Network, ...]:
    """What an entry of a list of sources means: ``any``, an address, or a network in CIDR notation."""
    if entry == "any":
        return ANY
    try:
        return (ipaddress.ip_network(str(entry), strict=False),)
    except ValueError:
        raise ValueError(f"{entry!r} is neither an address nor a network (10.0.0.0/8) nor any") from None


def opening(entry: Mapping[str, Any]) -> Opening:
    """An entry of gpu_host_filter_open: ``{ports: 51820, protocol: udp, from: [10.0.0.0/8]}``; tcp and any when left out."""
    if unknown := sorted(set(entry) - {"ports", "protocol", "from"}):
        raise ValueError(f"gpu_host_filter_open: unknown {', '.join(unknown)}; known are ports, protocol, from")
    protocol = entry.get("protocol", "tcp")
    if protocol not in PROTOCOLS:
        raise ValueError(f"gpu_host_filter_open: protocol is {protocol!r}; tcp or udp")
    sources = entry.get("from", ["any"])
    listed = [sources] if isinstance(sources, str) else sources
    return Opening(protocol, port_range(entry.get("ports")), tuple(one for item in listed for one in networks(item)))


def port_range(entry: object) -> range:
    """``51820`` or ``4000-4100``. Raises ValueError for what is neither."""
    first, _, last = str(entry).partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        found = range(0)
    if not found or not (found[0] > 0 and found[-1] < 65536):
        raise ValueError(f"{entry!r} is no port (51820) and no range of ports (4000-4100)")
    return found


def chosen_by_kernel(local_range: str, reserved: str) -> tuple[range, ...]:
    """The ports that the kernel hands out to whoever asks for any.

    Args:
        local_range: text of /proc/sys/net/ipv4/ip_local_port_range.
        reserved: text of /proc/sys/net/ipv4/ip_local_reserved_ports, which it never hands out: ``8080,9100-9110``.
    """
    first, last = (int(word) for word in local_range.split())
    free = [range(first, last + 1)]
    for part in filter(None, reserved.strip().split(",")):
        taken = port_range(part)
        free = [
            some
            for one in free
            for some in (range(one.start, min(one.stop, taken.start)), range(max(one.start, taken.stop), one.stop))
        ]
    return tuple(one for one in free if one)


def allowed(engine: EnginePorts, settings: Settings) -> dict[int, tuple[Network, ...]]:
    """By TCP port, who may come to it besides the hosts of the replica."""
    found: dict[int, tuple[Network, ...]] = dict.fromkeys((engine.api, engine.ready), settings.clients)
    for one in settings.openings:
        if one.protocol == "tcp":
            found |= {port: (*found.get(port, ()), *one.sources) for port in one.ports}
    return found if settings.ssh_port is None else {**found, settings.ssh_port: ANY}


def rules(identity: HostRecord, ray: RayPorts, engine: EnginePorts, settings: Settings, chosen: Sequence[range]) -> str:
    """The table for a host: what ``nft -f`` loads in one step, whether or not there is one already.

    Raises:
        ValueError: an address of the replica is none.
    """
    return f"""\
table inet lockstep {{}}
delete table inet lockstep
table inet lockstep {{
  chain input {{
    type filter hook input priority filter - 5; policy accept;
    iif lo accept
    meta l4proto != {{ tcp, udp }} accept
    th dport != {{ {_listed(closed_here(identity, ray, engine, chosen))} }} accept
{_lines(_accepts(identity, engine if identity["ray_role"] == "head" else None, settings))}
    counter drop
  }}
{_output(identity, settings)}}}
"""


def closed_here(identity: HostRecord, ray: RayPorts, engine: EnginePorts, chosen: Sequence[range]) -> tuple[range, ...]:
    """The ports that the table of a host closes."""
    carrier = [range(identity["underlay"]["port"], identity["underlay"]["port"] + 1)] if "underlay" in identity else []
    return closed(ray, engine if identity["ray_role"] == "head" else None, [*chosen, *carrier])


def _accepts(identity: HostRecord, engine: EnginePorts | None, settings: Settings) -> Iterable[str]:
    peers = [_address(name, where) for name, where in identity["peers"].items()]
    if "underlay" in identity:
        under = identity["underlay"]
        outside = [_address(name, where) for name, where in under["peers"].items()]
        yield from (
            f'iifname "{under["interface"]}" udp dport {under["port"]} {rule}' for rule in _from(outside, "accept")
        )
        yield from (f'iifname "{identity["interface"]}" {rule}' for rule in _from(peers, "accept"))
    else:
        yield from _from(peers, "accept")
    # Replies to what this host asked, and no more: what others began while no table was loaded ends with this.
    yield "ct direction reply accept"
    yield "ct state related accept"
    if settings.ssh_port is not None:
        yield f"tcp dport {settings.ssh_port} accept"
    if engine:
        yield from _from(settings.clients, f"tcp dport {{ {engine.api}, {engine.ready} }} accept")
    for one in settings.openings:
        yield from _from(one.sources, f"{one.protocol} dport {{ {_listed([one.ports])} }} accept")


def _output(identity: HostRecord, settings: Settings) -> str:
    """The chains for what goes out: in the tunnel what is meant for it, and to whom ``USER`` may go; "" where both are open."""
    peers = [_address(name, where) for name, where in identity["peers"].items()]
    rules: list[str] = []
    if "underlay" in identity:
        through = f'oifname != {{ "lo", "{identity["interface"]}" }}'
        rules += (f"{through} {rule}" for rule in _to(peers, "counter drop"))
    if settings.egress is None:
        return _chain(rules) if rules else ""
    # By a chain of its own: a packet that belongs to no socket any more has no user, and is not matched by any test of it.
    named = [
        "oif lo accept",
        "ct direction reply accept",
        "ct state related accept",
        *_to([*peers, *settings.egress], "accept"),
        "counter reject with icmpx type admin-prohibited",
    ]
    return f"""\
  chain egress {{
{_lines(named)}
  }}
{_chain([*rules, f'meta skuid "{USER}" jump egress'])}"""


def _chain(rules: Iterable[str]) -> str:
    return f"""\
  chain output {{
    type filter hook output priority filter - 5; policy accept;
{_lines(rules)}
  }}
"""


def _to(targets: Iterable[Network], then: str) -> Iterable[str]:
    return (rule.replace(" saddr ", " daddr ") for rule in _from(targets, then))


def _address(name: str, where: str) -> Network:
    try:
        return ipaddress.ip_network(where)
    except ValueError:
        raise ValueError(f"the address of {name} is {where!r}: set gpu_host_address of {name} to an address") from None


def _from(sources: Iterable[Network], then: str) -> Iterable[str]:
    """A rule for each family that has sources; networks that hold one another are one."""
    for version, family in ((4, "ip"), (6, "ip6")):
        some = cast("list[ipaddress.IPv4Network]", [source for source in sources if source.version == version])
        if not some:
            continue
        alone = list(ipaddress.collapse_addresses(some))
        if alone[0].prefixlen == 0:
            yield f"meta nfproto ipv{version} {then}"
        else:
            yield f"{family} saddr {{ {', '.join(map(_network, alone))} }} {then}"


def _network(network: Network) -> str:
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def _listed(ranges: Iterable[range]) -> str:
    return ", ".join(str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in ranges)


def _lines(written: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in written)
