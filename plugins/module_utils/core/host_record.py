"""The host record, ``/etc/lockstep/host.json``: what a host knows of itself and of its replica. gpu_host writes it."""

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
    """The record. ``nvswitch_ports``: RDMA devices that lead to this host's NVSwitches and no further; left out without any."""

    nvswitch_ports: list[str]


def parse(stored: Mapping[str, Any]) -> HostRecord:
    """The record from JSON.

    Raises:
        RecordError: a field is missing.
    """
    missing = sorted(HostRecord.__required_keys__ - set(stored))
    if missing:
        raise records.RecordError(f"{records.HOST}: has no {', '.join(missing)}", "ansible-playbook site.yml")
    return cast(HostRecord, stored)


def read() -> HostRecord | None:
    """This host's record; None where gpu_host has not run."""
    stored = records.read(records.HOST)
    return None if stored is None else parse(stored)


def require() -> HostRecord:
    """This host's record.

    Raises:
        RecordError: there is none, or it is damaged.
    """
    record = read()
    if record is None:
        raise records.RecordError(f"{records.HOST} does not exist", "ansible-playbook site.yml")
    return record
