"""Which RDMA ports of a host can carry a collective. ``read`` reads sysfs, the rest is pure.

A port of the InfiniBand class may be an Ethernet port (RoCE): its ``link_layer`` says so. InfiniBand needs no address, so
that its link-local GID will do; RoCE is routed by IP, and a link-local GID reaches nobody on another host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.grouping import grouped
from ..core.system import read_text
from .network_observations import RdmaPort

ACTIVE = "ACTIVE"
ROOT = Path("/sys/class/infiniband")


def read(root: Path = ROOT) -> list[RdmaPort]:
    """Every port of every RDMA device, with its GIDs that are set."""
    found: list[RdmaPort] = []
    for port in sorted(root.glob("*/ports/*")):
        gids = {}
        for path in sorted((port / "gids").glob("*")):
            value = read_text(path).strip()
            if value and set(value) - set("0:"):
                gids[path.name] = {"gid": value, "type": read_text(port / "gid_attrs" / "types" / path.name).strip()}
        found.append(
            {
                "device": port.parts[-3],
                "port": port.name,
                "state": read_text(port / "state").strip().partition(": ")[2],
                "rate": read_text(port / "rate").strip(),
                "link_layer": read_text(port / "link_layer").strip(),
                "model": read_text(port.parents[1] / "hca_type").strip(),
                "gids": gids,
            }
        )
    return found


def obstacle(port: RdmaPort) -> str | None:
    """Why this port carries nothing to another host; None where it can."""
    if port["state"] != ACTIVE:
        return f"is {port['state'] or 'in no known state'}"
    if not port["gids"]:
        return "has no GID"
    if port["link_layer"] == "Ethernet" and not any(routed(gid) for gid in port["gids"].values()):
        return "has no routed RoCE v2 GID: its interface has no IP address"
    return None


def routed(gid: Mapping[str, str]) -> bool:
    """Whether a RoCE GID is of version 2 and made from an IP address that is not link-local."""
    if "v2" not in gid.get("type", "RoCE v2"):
        return False
    try:
        address = ipaddress.IPv6Address(gid.get("gid", ""))
    except ValueError:
        return False
    return not (address.ipv4_mapped or address).is_link_local


def rails(ports: Sequence[RdmaPort]) -> list[RdmaPort]:
    """The ports that are there for collectives: those of the kind of which the host has most, InfiniBand before Ethernet.

    Rails are alike; a port for management is one or two of another card, or of another link layer.
    """
    kinds = grouped(((port["link_layer"], port["model"]), port) for port in ports)
    return max(kinds.values(), key=lambda kind: (len(kind), kind[0]["link_layer"] != "Ethernet"), default=[])


def usable(ports: Sequence[RdmaPort]) -> list[RdmaPort]:
    """The rails that can carry a collective."""
    return [port for port in rails(ports) if obstacle(port) is None]


def name(port: RdmaPort) -> str:
    return f"{port['device']}/{port['port']}"
