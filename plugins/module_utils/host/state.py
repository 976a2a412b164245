"""What the probe is asked and what it returns: the state of a host, as JSON carries it to the controller.

docs/architecture.md shows it. Everything here is JSON-ready.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from ..core import previous_settings
    from ..driver import state as driver_state
    from ..ray import firewall_live, gcs, tunnel_live
    from ..runtime import state as runtime_state

Record = dict[str, Any]
"""A record of this host as it lies on the disk, or ``Unread``."""


class Request(TypedDict, total=False):
    """What the caller asks about, beyond what is always read.

    ``preflight``: check ``ports`` (that Lockstep's units will listen on), ``peers`` (host name to address, to be resolved
    both ways), what lies at the path ``model``, what a ``tunnel`` at that UDP port needs, and whether the key that clients
    send now is among ``api_keys`` (SHA-256 of each). ``ray``: ask Ray for its nodes. ``driver_also``: those of
    ``driver_state.COSTLY`` to be read. ``inputs``: digest of what is wanted of each role; a role that is not named is not
    current.
    """

    preflight: bool
    ports: Sequence[int]
    peers: Mapping[str, str]
    model: str | None
    api_keys: Sequence[str]
    tunnel: int | None
    ray: bool
    driver_also: Sequence[str]
    inputs: Mapping[str, str]


class Unread(TypedDict):
    """In place of a part that could not be read."""

    error: str


class System(TypedDict):
    """The operating system, by os-release(5) and uname(2)."""

    distribution: str
    like: str
    version: str
    kernel: str
    arch: str
    python: str


class Boot(TypedDict):
    """The machine's boot id, and when this host's first process started: Unix seconds, and microseconds after the boot."""

    id: str
    since: str
    monotonic_us: str


class Machine(TypedDict):
    """What tells a machine from others (``/etc/machine-id``), NVIDIA's cards on its PCI bus, and the ports that the kernel
    gives to outgoing connections: first and last, and those that it never gives, as sysctl(8) prints them. ``links`` are the
    kinds of its RDMA devices (driver/links.py), ``rdma`` those devices that are up."""

    id: str
    pci_gpus: int
    ephemeral_ports: list[int]
    reserved_ports: str
    links: list[str]
    rdma: list[str]


class Network(TypedDict):
    """An IPv4 address of an interface; ``metric`` of the route to its own network, None where there is no such route."""

    address: str
    prefix: int
    metric: int | None


class Carrier(TypedDict):
    """What a host has for a tunnel: WireGuard in the ``kernel``, or ``tun`` for a program; whether something listens on the UDP
    port; the MTU of its interfaces."""

    kernel: bool
    tun: bool
    port_taken: bool
    mtu: dict[str, int]


class ModelFile(TypedDict):
    """``sha256`` is None where the file could not be read, or holds no JSON."""

    size: int
    sha256: str | None


class Staged(TypedDict):
    """What staging has left: its source, the digest of its files, their MiB, and those that are not as long as they were."""

    source: str
    digest: str
    mib: int
    lacking: list[str]


class Model(TypedDict):
    """What lies at a model's path: ``kind`` is ``absent``, ``folder`` or ``file``.

    ``files``: its configuration and the index of its weights; ``weights``: sizes; ``missing``: what the index names and is
    not there; ``readable_by``: a user's name and whether it can read all that; ``free_mib``: room on its file system, None
    where that is not known; ``staged``: what staging says of it, None where it did not make it.
    """

    path: str
    kind: str
    files: dict[str, ModelFile]
    weights: dict[str, int]
    missing: list[str]
    readable_by: dict[str, bool]
    free_mib: int | None
    staged: Staged | None


class Unit(TypedDict):
    """A systemd unit; ``since`` in Unix seconds."""

    load: str
    active: str
    enabled: str
    result: str
    restarts: int
    since: str | None


class Manifest(TypedDict):
    """Whether a role was applied from what is wanted of it now, and by the same code; the files changed since."""

    current: bool
    same_code: bool
    drifted: list[str]


class Preflight(TypedDict, total=False):
    """``taken_ports``: port to its listener; ``names``: peer to its problem or None; ``model``: what lies at the path that was
    asked for; ``tunnel``: what there is for one; ``drops_api_key``: the key in use is not among those that are wanted."""

    taken_ports: dict[str, str]
    names: dict[str, str | None]
    model: Model | Unread
    tunnel: Carrier | Unread
    drops_api_key: bool


class RouterServer(TypedDict):
    """A replica in HAProxy's runtime state; ``address`` with the port, ``up``: it is sent requests."""

    address: str
    status: str
    draining: bool
    up: bool


class Router(TypedDict):
    """What HAProxy, where Lockstep has configured it, sends requests to, by name; units that have not loaded their files."""

    servers: dict[str, RouterServer]
    unloaded: list[str]


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
    previous: previous_settings.Summary | Unread | None
    engine: Record | None
    lock: Record | None
    request: Record | None
    manifest: dict[str, Manifest] | Unread
    disk_free_mib: dict[str, int] | Unread
    networks: dict[str, list[Network]] | Unread
    machine: Machine | Unread
    filter: firewall_live.State
    tunnel: tunnel_live.State


class HostState(CoreState, total=False):
    """The state of a host, with what was asked for beyond, and with ``router`` where it is one."""

    preflight: Preflight | Unread
    ray: gcs.Summary | Unread
    router: Router | Unread
