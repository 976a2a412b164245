"""The host record, ``/etc/lockstep/host.json``: what a host knows of itself and of its replica. gpu_host writes it.

Where the hosts of the replica talk through a tunnel (``ray_node_encryption``), ``/etc/lockstep/tunnel.json`` lies beside it:
whoever reads the record then gets the tunnel's interface and addresses as the host's own, and no other way to the peers. What
they are without the tunnel is in ``underlay``, for the packet filter and for what clients reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast

from . import records

Role = Literal["head", "worker"]
"""Part of a host in its replica's Ray cluster: the head runs the control store and the engine."""


class Head(TypedDict):
    """The head of the replica, by inventory name and address."""

    host: str
    address: str


class Underlay(TypedDict):
    """What carries the tunnel: the host's own interface and the replica's addresses there, and the tunnel's UDP port."""

    address: str
    interface: str
    peers: dict[str, str]
    port: int


class _Declared(TypedDict):
    """What the inventory declares; ``peers`` has the address of every host of the replica by name, this one included."""

    host: str
    replica: str
    ray_role: Role
    address: str
    interface: str
    gpus: int
    gpu_model: str | None
    zone: str | None
    head: Head
    peers: dict[str, str]


class HostRecord(_Declared, total=False):
    """The record. ``nvswitch_ports``: RDMA devices that lead to this host's NVSwitches and no further; left out without any.
    ``underlay`` is there where the replica's hosts talk through a tunnel."""

    nvswitch_ports: list[str]
    underlay: Underlay


class Tunnel(TypedDict):
    """``tunnel.json``: this host's end of the tunnel, and the address in it of every host of the replica."""

    interface: str
    address: str
    port: int
    peers: dict[str, str]


def parse(stored: Mapping[str, Any]) -> HostRecord:
    """The record from JSON. Raises RecordError where it is none."""
    return records.parsed(HostRecord, stored, records.HOST, "ansible-playbook site.yml")


def through(record: HostRecord, tunnel: Mapping[str, Any]) -> HostRecord:
    """The record of a host whose replica talks through a tunnel.

    Raises:
        RecordError: the tunnel knows no head of that name, or is damaged.
    """
    try:
        peers = dict(tunnel["peers"])
        head = record["head"]["host"]
        return {
            **record,
            "address": tunnel["address"],
            "interface": tunnel["interface"],
            "head": {"host": head, "address": peers[head]},
            "peers": peers,
            "underlay": {
                "address": record["address"],
                "interface": record["interface"],
                "peers": record["peers"],
                "port": int(tunnel["port"]),
            },
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise records.RecordError(
            f"{records.TUNNEL}: cannot be used: {error!r}", "ansible-playbook site.yml"
        ) from error


def stored() -> HostRecord | None:
    """This host's record as it is in force, unchecked: any key may be missing. None where gpu_host has not run.

    Raises:
        RecordError: it is damaged, or the tunnel's is.
    """
    record, tunnel = cast("HostRecord | None", records.read(records.HOST)), records.read(records.TUNNEL)
    return record if record is None or tunnel is None else through(record, tunnel)


def without_tunnel() -> HostRecord:
    """This host's record as gpu_host wrote it.

    Raises:
        RecordError: there is none, or it is damaged.
    """
    found = records.read(records.HOST)
    if found is None:
        raise _missing()
    return parse(found)


def _missing() -> records.RecordError:
    return records.RecordError(f"{records.HOST} does not exist", "ansible-playbook site.yml")


def api_address(record: HostRecord) -> str:
    """Where routers and clients reach vLLM and the readiness answer: never in the tunnel, which is the replica's alone."""
    return str((record.get("underlay") or record)["address"])


def ranks_interface(record: HostRecord) -> str:
    """Where ranks meet (NCCL, Gloo): on loopback where one host is all of the replica. Ray refuses loopback."""
    return "lo" if len(record["peers"]) == 1 else str(record["interface"])


def read() -> HostRecord | None:
    """This host's record; None where gpu_host has not run."""
    found = stored()
    return None if found is None else parse(found)


def require() -> HostRecord:
    """This host's record.

    Raises:
        RecordError: there is none, or it is damaged.
    """
    record = read()
    if record is None:
        raise _missing()
    return record
