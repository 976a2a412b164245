"""Which machine a host is, its cards on the PCI bus, its networks, and what it has for a tunnel: files and one command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.system import read_text
from ..driver import fabric
from ..driver.links import links

if TYPE_CHECKING:
    from .state import Carrier, Machine, Network


def machine(root: Path = Path("/")) -> Machine:
    """What tells this machine from others, and what it has on its PCI bus."""
    sysctl = root / "proc/sys/net/ipv4"
    return {
        "id": read_text(root / "etc/machine-id").strip(),
        "pci_gpus": sum(1 for _card in fabric.cards(root)),
        "ephemeral_ports": [int(port) for port in read_text(sysctl / "ip_local_port_range").split()],
        "reserved_ports": read_text(sysctl / "ip_local_reserved_ports").strip(),
        "links": links(root),
        "rdma": active_rdma(root),
    }


def active_rdma(root: Path = Path("/")) -> list[str]:
    """RDMA devices with a port that is up: InfiniBand, RoCE and the like, less those that lead to NVSwitches alone."""
    ports = sorted((root / "sys/class/infiniband").glob("*/ports/*"))
    up = dict.fromkeys(port.parts[-3] for port in ports if read_text(port / "state").strip().endswith("ACTIVE"))
    switches = fabric.switch_ports(root) if up else ()
    return [device for device in up if device not in switches]


def carrier(port: int, root: Path = Path("/")) -> Carrier:
    """What a host has for a WireGuard tunnel: the kernel's part or a device for another's, the UDP port, interfaces' MTU."""
    modules = root / "lib/modules" / os.uname().release
    listed = read_text(modules / "modules.dep") + read_text(modules / "modules.builtin")
    return {
        "kernel": (root / "sys/module/wireguard").exists() or "/wireguard.ko" in listed,
        "tun": (root / "dev/net/tun").exists(),
        "port_taken": any(
            line.split()[1].endswith(f":{port:04X}")
            for table in ("udp", "udp6")
            for line in read_text(root / "proc/net" / table).splitlines()[1:]
        ),
        "mtu": {path.parent.name: int(read_text(path)) for path in sorted((root / "sys/class/net").glob("*/mtu"))},
    }


def networks(shown: str, routes: str) -> dict[str, list[Network]]:
    """IPv4 addresses by interface, each with its prefix length and the metric of the route to its own network.

    Args:
        shown: what ``ip -json -4 address show`` prints.
        routes: the text of ``/proc/net/route``.
    """
    metrics = _metrics(routes)
    return {
        item["ifname"]: [
            {
                "address": address["local"],
                "prefix": int(address.get("prefixlen", 32)),
                "metric": metrics.get((item["ifname"], _network(address["local"], int(address.get("prefixlen", 32))))),
            }
            for address in item.get("addr_info", [])
        ]
        for item in json.loads(shown)
    }


def _metrics(routes: str) -> dict[tuple[str, tuple[int, int]], int]:
    """Metric by interface and network of the routes that have no gateway; of several to one network the lowest."""
    found: dict[tuple[str, tuple[int, int]], int] = {}
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or int(fields[2], 16):
            continue
        mask = bin(int(fields[7], 16)).count("1")
        key = (fields[0], (int.from_bytes(bytes.fromhex(fields[1]), "little"), mask))
        found[key] = min(int(fields[6]), found.get(key, int(fields[6])))
    return found


def _network(address: str, prefix: int) -> tuple[int, int]:
    number = int.from_bytes(bytes(int(part) for part in address.split(".")), "big")
    return number >> (32 - prefix) << (32 - prefix), prefix
