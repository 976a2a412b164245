"""What the probe is asked and what it returns: the state of a host, as JSON carries it to the controller.

docs/architecture.md shows it. Everything here is JSON-ready.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from ..driver import packages as driver_packages
    from ..driver import state as driver_state
    from ..runtime import state as runtime_state

Record = dict[str, Any]
"""A record of this host as it lies on the disk, or ``Unread``."""


class DriverRequest(TypedDict):
    """A driver that the plan asks for: is it on offer?"""

    version: str
    source: driver_packages.Source
    flavor: driver_packages.Flavor
    fabric_manager: bool
    repository_url: str | None


class Request(TypedDict, total=False):
    """What the caller asks about, beyond what is always read.

    ``preflight``: check ``ports`` (that Lockstep's units will listen on), ``peers`` (host name to address, to be resolved
    both ways) and ``driver``, that only while the host does not already have that version. ``ray``: ask Ray for its nodes.
    ``driver_also``: those of ``driver_state.COSTLY`` to be read. ``inputs``: digest of what is wanted of each role; a role that
    is not named is not current.
    """

    preflight: bool
    ports: Sequence[int]
    peers: Mapping[str, str]
    driver: DriverRequest | None
    ray: bool
    driver_also: Sequence[str]
    inputs: Mapping[str, str]


class Unread(TypedDict):
    """In place of a part that could not be read."""

    error: str


class System(TypedDict):
    """The operating system; ``secure_boot`` is None without UEFI."""

    distribution: str
    like: str
    version: str
    codename: str
    kernel: str
    arch: str
    python: str
    hostname: str
    secure_boot: bool | None


class Boot(TypedDict):
    """The machine's boot id, and when this host's first process started: Unix seconds, and microseconds after the boot."""

    id: str
    since: str
    monotonic_us: str


class Unit(TypedDict):
    """A systemd unit; ``since`` in Unix seconds."""

    load: str
    active: str
    sub: str
    enabled: str
    result: str
    restarts: int
    since: str | None


class Manifest(TypedDict):
    """Whether a role was applied from what is wanted of it now, and the files that have been changed since."""

    current: bool
    drifted: list[str]


class Preflight(TypedDict, total=False):
    """``taken_ports``: port to its listener; ``names``: peer to its problem or None; ``driver_refusal``: why there is none."""

    taken_ports: dict[str, str]
    names: dict[str, str | None]
    driver_refusal: str | None


class Stamps(TypedDict):
    host: Record | None
    replica: Record | None


class CoreState(TypedDict):
    """What is always read of a host. The records are as they lie on the disk."""

    schema: int
    os: System | Unread
    boot: Boot | Unread
    clock: float
    driver: driver_state.FullDriverState | Unread
    runtime: runtime_state.State | Unread
    fingerprint: dict[str, str | None]
    fingerprint_digest: str
    units: dict[str, Unit] | Unread
    host: Record | None
    stamps: Stamps
    quarantine: Record | None
    change: Record | None
    engine: Record | None
    lock: Record | None
    request: Record | None
    manifest: dict[str, Manifest] | Unread
    disk_free_mib: dict[str, int] | Unread
    addresses: dict[str, list[str]] | Unread


class HostState(CoreState, total=False):
    """The state of a host, with what was asked for beyond."""

    preflight: Preflight | Unread
    ray: dict[str, Any]
