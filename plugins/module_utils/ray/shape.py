"""The shape of a Ray cluster that an engine needs: which hosts may count, how many, with how many GPUs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..core.host_record import HostRecord


@dataclasses.dataclass(frozen=True)
class Shape:
    """What must be there.

    Attributes:
        members: address by name of the hosts that may count; more than ``hosts`` of them means spares.
        hosts: how many must be there.
        gpus_per_host: that a host needs in order to count.
        gpus: in all; None for ``hosts`` times ``gpus_per_host``.
        resources: amounts of custom resources, in all.
        labels: Ray labels that a host needs in order to count.
        gpus_declared: that every host has by the inventory; None where unknown.
        free: count only GPUs that nobody holds.
        stable_for: seconds for which all that must hold.
        head: address of the head.
        head_host: its name.
        port: of the head's GCS; None for the one that ``ray.json`` names.
    """

    members: Mapping[str, str]
    hosts: int
    gpus_per_host: float = 1
    gpus: float | None = None
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gpus_declared: float | None = None
    free: bool = False
    stable_for: float = 0.0
    head: str = ""
    head_host: str = ""
    port: int | None = None

    @property
    def gpus_required(self) -> float:
        return self.hosts * self.gpus_per_host if self.gpus is None else self.gpus


class ShapeError(ValueError):
    """An invalid shape; the message names what is wrong."""


def shape_of(identity: HostRecord, changes: Mapping[str, Any] | None = None) -> Shape:
    """The shape of a whole replica from ``host.json``, changed by ``changes`` (same names as the attributes of Shape;
    ``members`` may also be a list of names out of ``host.json``'s peers).

    Raises:
        ShapeError: an unknown name or a member without an address.
    """
    changes = dict(changes or {})
    peers: Mapping[str, str] = identity.get("peers", {})
    unknown = sorted(set(changes) - {field.name for field in dataclasses.fields(Shape)})
    if unknown:
        raise ShapeError(f"unknown key: {', '.join(unknown)}")
    members = changes.pop("members", None)
    if isinstance(members, (list, tuple)):
        unknown_hosts = sorted(set(members) - set(peers))
        if unknown_hosts:
            raise ShapeError(f"{', '.join(unknown_hosts)}: not in replica {identity.get('replica')}")
        members = {name: peers[name] for name in members}
    head = identity.get("head", {})
    members = members or peers
    defaults = {
        "hosts": len(members),
        "gpus_per_host": identity.get("gpus", 1),
        "gpus_declared": identity.get("gpus"),
        "head": head.get("address", ""),
        "head_host": head.get("host", ""),
    }
    return Shape(members=members, **{**defaults, **changes})


def impossible(shape: Shape) -> str:
    """Why no waiting and no repair can bring this shape about; empty when it can come."""
    there, each = len(shape.members), shape.gpus_declared
    if shape.hosts > there:
        return f"{shape.hosts} hosts are required, the replica has {there}: {', '.join(sorted(shape.members))}"
    if each is not None and shape.gpus_per_host > each:
        return f"{number(shape.gpus_per_host)} GPUs per host are required, the inventory declares {number(each)}"
    if each is not None and shape.gpus_required > each * there:
        return (
            f"{number(shape.gpus_required)} GPUs are required, the inventory declares {number(each)} on {there} hosts"
        )
    return ""


def number(value: float) -> str:
    return f"{value:g}"
