"""What a plan reads of the machine under a host, of its networks and of its model: the probe's answer, parsed once."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from ..core import typed

Answer = Mapping[str, Any]
"""A part of a probe's answer, which ``host/answer.py`` has looked at."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """Which machine a host is, and what it has; None for what could not be read.

    Attributes:
        id: ``/etc/machine-id``, which images carry along.
        boot: the kernel's boot id and when the first process started: containers share the former alone.
        pci_gpus: NVIDIA's cards on the PCI bus, with or without a driver.
        ephemeral: ports that the kernel gives to outgoing connections.
        reserved: ports that it never gives to them.
        links: kinds of its RDMA devices.
        rdma: RDMA devices that are up.
    """

    id: str | None = None
    boot: tuple[str, str] | None = None
    pci_gpus: int | None = None
    ephemeral: range = range(0)
    reserved: frozenset[int] = frozenset()
    links: tuple[str, ...] = ()
    rdma: tuple[str, ...] = ()

    @classmethod
    def parse(cls, answer: Answer, boot: Answer) -> Machine:
        first = [int(port) for port in answer.get("ephemeral_ports") or ()]
        return cls(
            id=answer.get("id") or None,
            boot=(str(boot["id"]), str(boot["monotonic_us"])) if "id" in boot and "monotonic_us" in boot else None,
            pci_gpus=answer.get("pci_gpus"),
            ephemeral=range(first[0], first[1] + 1) if len(first) == 2 else range(0),
            reserved=frozenset(_ports(str(answer.get("reserved_ports") or ""))),
            links=tuple(answer.get("links") or ()),
            rdma=tuple(answer.get("rdma") or ()),
        )


def _ports(listed: str) -> Iterator[int]:
    """``8080,9000-9010``, as the kernel lists ports."""
    for part in filter(None, listed.split(",")):
        first, _dash, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@dataclasses.dataclass(frozen=True)
class Network:
    """An IPv4 address of an interface, its network, and the metric of the route there; None where there is no such route."""

    address: str
    network: ipaddress.IPv4Network
    metric: int | None

    @classmethod
    def parse_all(cls, answer: Answer) -> dict[str, tuple[Network, ...]] | None:
        """By interface; None where they could not be read."""
        if "error" in answer:
            return None
        return {name: tuple(map(cls._parse, inside)) for name, inside in answer.items()}

    @classmethod
    def _parse(cls, answer: Answer) -> Network:
        network = ipaddress.IPv4Network(f"{answer['address']}/{answer['prefix']}", strict=False)
        return cls(str(answer["address"]), network, answer["metric"])


@dataclasses.dataclass(frozen=True)
class Carrier:
    """What a host has for a tunnel.

    Attributes:
        wireguard: the kernel's, or a device for ``wireguard-go``.
        port_taken: something listens on the tunnel's UDP port.
        mtu: by interface.
    """

    wireguard: bool = True
    port_taken: bool = False
    mtu: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, answer: Answer) -> Carrier | None:
        """None where it was not asked for, or could not be read."""
        if not answer or "error" in answer:
            return None
        return cls(bool(answer["kernel"] or answer["tun"]), bool(answer["port_taken"]), dict(answer["mtu"]))


@dataclasses.dataclass(frozen=True)
class Staged:
    """A model that staging has brought.

    Attributes:
        source: where it came from.
        digest: of its files: the same on hosts that have the same.
        mib: its size.
        lacking: files that are missing, or of another length.
    """

    source: str
    digest: str
    mib: int
    lacking: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Model:
    """What lies at a model's path on one host; ``error`` where that could not be read.

    Attributes:
        kind: ``absent``, ``folder`` or ``file``.
        files: size and checksum of its configuration and of the index of its weights, by name.
        weights: their sizes, by name.
        missing: what the index names and is not there.
        unreadable_for: the user who cannot read it; None where the engine's can, or nobody knows.
        free_mib: room on its file system; None where that is not known.
        staged: what staging has left there; None where staging did not make it.
    """

    path: str = ""
    kind: str = ""
    files: Mapping[str, tuple[int, str | None]] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, int] = dataclasses.field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unreadable_for: str | None = None
    free_mib: int | None = None
    staged: Staged | None = None
    error: str | None = None

    @classmethod
    def parse(cls, answer: Answer) -> Model:
        if "error" in answer:
            return cls(error=str(answer["error"]))
        staged = answer.get("staged")
        return cls(
            path=str(answer["path"]),
            kind=str(answer["kind"]),
            files={name: (about["size"], about["sha256"]) for name, about in answer["files"].items()},
            weights=dict(answer["weights"]),
            missing=tuple(answer["missing"]),
            unreadable_for=next((user for user, can in answer["readable_by"].items() if not can), None),
            free_mib=answer.get("free_mib"),
            staged=typed.parse(Staged, staged, typed.NEWER) if staged else None,
        )

    @property
    def content(self) -> dict[str, tuple[int, str | None]]:
        """What has to be the same on all hosts of a replica, by name."""
        return {**{name: (size, None) for name, size in self.weights.items()}, **self.files}
