"""What a host has to carry a collective's traffic, and what its network cards carried while the ranks worked.

All of it is read from files that anybody may read, but for NVLink's rates and domain, for which nvidia-smi is asked while the
ranks run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from ..core import records
from ..core.commands import in_background, run_command
from ..core.system import read_text
from ..driver import fabric, health
from ..driver.health import Links
from . import nccl_log, rdma
from .nccl_log import Said
from .network_observations import RdmaPort

Kind = Literal["ib", "roce", "efa", "ethernet"]
RDMA: tuple[Kind, ...] = ("efa", "ib", "roce")
MOST_DEVICES = 256
SMI_DEADLINE = 5.0
_ROOT = Path("/")
_ENCODING = {"2.5": 0.8, "5.0": 0.8, "8.0": 128 / 130, "16.0": 128 / 130, "32.0": 128 / 130, "64.0": 242 / 256}
"""Share of a PCIe lane's transfers that are data, by its GT/s (PCI-SIG, "PCI Express Base Specification")."""


@dataclasses.dataclass(frozen=True)
class Nic:
    """One port of a network card.

    Attributes:
        name: of the RDMA device, or of the interface.
        kind: ``ib``, ``roce`` (RDMA over Ethernet), ``efa`` (AWS), or ``ethernet``, without RDMA.
        gbps: 10^9 bits per second; None where it does not say.
        usable: whether its link is up, and, of RoCE, whether it has an address that a router takes.
        sent: bytes; None where they are not counted.
        received: likewise.
    """

    name: str
    kind: Kind
    gbps: float | None = None
    usable: bool = False
    sent: int | None = None
    received: int | None = None

    @property
    def moved(self) -> int | None:
        """Bytes in both directions."""
        return None if self.sent is None or self.received is None else self.sent + self.received


@dataclasses.dataclass(frozen=True)
class Wire:
    """What one host has, and what was seen of it while its ranks ran.

    Attributes:
        said: what NCCL said; None where it left no log.
        nics: with the bytes that they carried meanwhile.
        nvlink: 10^9 bytes per second and direction of each GPU's NVLinks together; None without, or where GPUs differ too much.
        pcie: likewise of the narrowest GPU's PCIe link.
        domain: the NVLink domain, with its clique, that its GPUs have joined with those of other hosts; None for none.
    """

    said: Said | None = None
    nics: tuple[Nic, ...] = ()
    nvlink: float | None = None
    pcie: float | None = None
    domain: str | None = None

    def rdma(self) -> tuple[Nic, ...]:
        """The RDMA ports that can be used."""
        return tuple(nic for nic in self.nics if nic.kind in RDMA and nic.usable)


class Watch:
    """Looks at a host's links while its ranks run."""

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root
        self._ignored = nvswitch_ports()
        self._before = nics(root, self._ignored)
        gpus = (root / "proc/driver/nvidia/version").exists()
        self._nvlink = in_background(lambda: health.nvlink(SMI_DEADLINE)) if gpus else None
        spans = gpus and fabric.spans_hosts(root)
        self._domain = in_background(lambda: fabric.domain(run_command, SMI_DEADLINE)) if spans else None

    def end(self, log: str) -> Wire:
        """What was seen; ``log`` is NCCL's, of all ranks."""
        after = nics(self._root, self._ignored)
        return Wire(
            said=nccl_log.parse(log) if log else None,
            nics=carried(self._before, after),
            nvlink=nvlink_rate(self._nvlink()) if self._nvlink else None,
            pcie=pcie_rate(self._root),
            domain=self._domain() if self._domain else None,
        )


def nvswitch_ports() -> tuple[str, ...]:
    """RDMA devices of this host that lead to its NVSwitches and no further, as gpu_host recorded them: only root sees which."""
    with contextlib.suppress(records.RecordError):
        found = (records.read(records.HOST) or {}).get("nvswitch_ports")
        return tuple(map(str, found)) if isinstance(found, list) else ()
    return ()


def nics(root: Path = _ROOT, ignored: Collection[str] = ()) -> tuple[Nic, ...]:
    """Every port of every RDMA device, and every interface but the loopback. ``ignored`` names devices to pass over."""
    ports = (port for port in rdma.read(root / "sys/class/infiniband") if port["device"] not in ignored)
    interfaces = sorted((root / "sys/class/net").glob("*"))[:MOST_DEVICES]
    return (
        *(_rdma(root, port) for port in itertools.islice(ports, MOST_DEVICES)),
        *(_interface(one) for one in interfaces if one.name != "lo"),
    )


def _rdma(root: Path, port: RdmaPort) -> Nic:
    device = root / "sys/class/infiniband" / port["device"]
    folder = device / "ports" / port["port"]
    kind: Kind = "ib"
    if _driver(device) == "efa":
        kind = "efa"
    elif port["link_layer"] == "Ethernet":
        kind = "roce"
    # PortCounters of the InfiniBand Architecture Specification count data by four bytes.
    counters, unit = folder / "counters", 4
    sent, received = "port_xmit_data", "port_rcv_data"
    if kind == "efa":
        counters, unit, sent, received = folder / "hw_counters", 1, "tx_bytes", "rx_bytes"
    rate = re.match(r"[\d.]+", port["rate"])
    return Nic(
        port["device"] if port["port"] == "1" else f"{port['device']}:{port['port']}",
        kind,
        float(rate[0]) if rate else None,
        rdma.obstacle(port) is None if kind == "roce" else port["state"] == rdma.ACTIVE,
        _count(counters / sent, unit),
        _count(counters / received, unit),
    )


def _driver(device: Path) -> str:
    with contextlib.suppress(OSError):
        return (device / "device" / "driver").resolve().name
    return ""


def _interface(folder: Path) -> Nic:
    speed = read_text(folder / "speed").strip()
    counted = folder / "statistics"
    return Nic(
        folder.name,
        "ethernet",
        int(speed) / 1e3 if speed.isdigit() and int(speed) else None,
        read_text(folder / "operstate").strip() == "up",
        _count(counted / "tx_bytes", 1),
        _count(counted / "rx_bytes", 1),
    )


def _count(path: Path, unit: int) -> int | None:
    text = read_text(path).strip()
    return int(text) * unit if text.isdigit() else None


def carried(before: Sequence[Nic], after: Sequence[Nic]) -> tuple[Nic, ...]:
    """The cards as they are after, with the bytes that they carried in between.

    None where a counter began anew, and where it has never counted anything: not every driver counts.
    """
    earlier = {(nic.kind, nic.name): nic for nic in before}
    return tuple(
        dataclasses.replace(
            nic,
            sent=_difference(earlier.get((nic.kind, nic.name)), nic, "sent"),
            received=_difference(earlier.get((nic.kind, nic.name)), nic, "received"),
        )
        for nic in after
    )


def _difference(before: Nic | None, after: Nic, name: str) -> int | None:
    first, last = getattr(before, name, None), getattr(after, name)
    return last - first if first is not None and last and last >= first else None


def network_kind(found: Sequence[Nic]) -> Kind:
    """What traffic to other hosts crosses where NCCL takes the best that there is."""
    kinds = {nic.kind for nic in found if nic.usable}
    return next((kind for kind in RDMA if kind in kinds), "ethernet")


def nvlink_rate(links: Sequence[Links]) -> float | None:
    """10^9 bytes per second of a GPU's NVLinks together, of the slowest GPU; None where a GPU has none that is up."""
    slowest = min((sum(one.rates) for one in links), default=0.0)
    return round(slowest, 3) if slowest else None


def all_by_nvlink(topology: str) -> bool:
    """Whether every two GPUs of ``nvidia-smi topo -m`` are joined by NVLink; pairs alone leave all others to PCIe."""
    rows = [re.sub(r"\x1b\[\d*m", "", line).split() for line in topology.splitlines()]
    gpus = [row for row in rows if "X" in row and re.fullmatch(r"GPU\d+", row[0])]
    joins = [cell for row in gpus for cell in row[1 : len(gpus) + 1] if cell != "X"]
    return bool(joins) and all(re.fullmatch(r"NV\d+", cell) for cell in joins)


def pcie_rate(root: Path = _ROOT) -> float | None:
    """10^9 bytes per second and direction of the PCIe link of NVIDIA's slowest card; None where the kernel does not say.

    The lanes that it has now, at the speed that it and the port above it can do: an idle link slows down.
    """
    rates = [_link_rate(card) for card in fabric.cards(root)]
    known = [rate for rate in rates if rate is not None]
    return min(known) if rates and len(known) == len(rates) else None


def _link_rate(device: Path) -> float | None:
    lanes = read_text(device / "current_link_width").strip()
    speeds = [_speed(device), _speed(device.resolve().parent)]
    known = [speed for speed in speeds if speed]
    if not lanes.isdigit() or not int(lanes) or speeds[0] is None:
        return None
    return round(min(known) * int(lanes) / 8, 3)


def _speed(device: Path) -> float | None:
    """10^9 bits of data per second and lane."""
    match = re.match(r"([\d.]+) GT/s", read_text(device / "max_link_speed").strip())
    share = _ENCODING.get(match[1]) if match else None
    return float(match[1]) * share if match and share else None
