"""The NVLink fabric of a host: who manages its NVSwitches, and which NVLink domain its GPUs have joined.

Three kinds of hosts have NVSwitches. Up to the third generation (HGX A100, H100) the switches are PCI devices of the host. Of
the fourth (HGX B200, B300) the host's PCI bus shows only the ConnectX functions that manage them, marked by ``SW_MNG`` in
their vital product data (NVIDIA/gpu-driver-container, ``_assert_nvlink5_system``): fabric manager then works through
nvlsm, a subnet manager. In a rack (GB200 NVL72, GB300 NVL72) the switches are machines of their own, and what a host needs
is IMEX.

The probe sends this file to every host, so it imports little.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from ..core.commands import Run
from ..core.system import read_text

if TYPE_CHECKING:
    from .health import GpuHealth

MARK = b"SW_MNG"
VPD_LIMIT = 4096
"""Bytes of vital product data that are read of one function; it has 32 KiB at most, and every four of them take the bus."""
MOST_FUNCTIONS = 64
SPANS_HOSTS = {0x2941: "GB200", 0x31C2: "GB300"}
"""PCI device ids of cards whose NVLink reaches other hosts (NVIDIA/open-gpu-kernel-modules, "Compatible GPUs")."""
IMEX = "nvidia-imex.service"
IMEX_HOSTS = "etc/nvidia-imex/nodes_config.cfg"
"""Where IMEX has the addresses of the hosts that share memory, one a line."""
IMEX_CHANNELS = "dev/nvidia-caps-imex-channels"
"""Without a device here no program may share memory with other hosts, whatever IMEX says."""
_NO_CLUSTER = "00000000-0000-0000-0000-000000000000"


class Fabric(TypedDict):
    """What a host's NVLink fabric is made of.

    ``switch_managers``: functions that manage NVSwitches which are no PCI devices. ``ib_umad``: whether the module is
    loaded through which they are reached. ``spans_hosts``: whether the cards' NVLink reaches other hosts. ``domain``: the
    NVLink domain that all GPUs have joined, with their clique in it; None where it is this host's alone, or not known.
    ``imex_active``: whether IMEX runs; None where nothing needs it. ``imex_channel``: whether there is a channel for programs;
    likewise.
    """

    switch_managers: int
    ib_umad: bool
    spans_hosts: bool
    domain: str | None
    imex_active: bool | None
    imex_channel: bool | None


def switch_managers(root: Path = Path("/")) -> list[str]:
    """PCI addresses of the functions that manage NVSwitches; none where the host has no GPU of NVIDIA's."""
    if not any(cards(root)):
        return []
    found = list(functions(root, "0x15b3", "0x0207"))[:MOST_FUNCTIONS]
    return [function.name for function in found if MARK in _vital_product_data(function / "vpd")]


def switch_ports(root: Path = Path("/")) -> list[str]:
    """RDMA devices of the functions that manage NVSwitches: they carry nothing of NCCL's."""
    folders = (root / "sys/bus/pci/devices" / address / "infiniband" for address in switch_managers(root))
    return sorted(device.name for folder in folders for device in folder.glob("*"))


def cards(root: Path) -> Iterator[Path]:
    """NVIDIA's GPUs on the PCI bus, VGA and 3D controllers. They are there with no driver loaded too."""
    return functions(root, "0x10de", "0x0300", "0x0302")


def functions(root: Path, vendor: str, *kinds: str) -> Iterator[Path]:
    """PCI functions of a vendor, by the first digits of their class."""
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if read_text(device / "vendor").strip() == vendor and read_text(device / "class").startswith(kinds):
            yield device


def _vital_product_data(path: Path) -> bytes:
    """Empty where it cannot be read, as for anybody but root."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(handle, VPD_LIMIT)
    except OSError:
        return b""
    finally:
        os.close(handle)


def spans_hosts(root: Path = Path("/")) -> bool:
    """Whether the NVLink of a card of this host reaches other hosts; known with no driver loaded too.

    By the card, or, of cards that are not listed, by an operator who has given IMEX other hosts to share memory with.
    """
    found = [read_text(card / "device").strip() for card in cards(root)]
    return any(text and int(text, 16) in SPANS_HOSTS for text in found) or (bool(found) and len(imex_hosts(root)) > 1)


def imex_hosts(root: Path = Path("/")) -> list[str]:
    """The addresses that IMEX is given."""
    lines = (line.partition("#")[0].strip() for line in read_text(root / IMEX_HOSTS).splitlines())
    return [line for line in lines if line]


def read(root: Path, run: Run, deadline: float) -> Fabric:
    """The fabric of this host. nvidia-smi is asked only where the cards' NVLink reaches other hosts."""
    spans = spans_hosts(root)
    imex = channel = None
    if spans:
        imex = run(["systemctl", "is-active", IMEX], deadline).stdout.strip() == "active"
        channel = any((root / IMEX_CHANNELS).glob("channel*"))
    return {
        "switch_managers": len(switch_managers(root)),
        "ib_umad": (root / "sys/module/ib_umad").exists(),
        "spans_hosts": spans,
        "domain": domain(run, deadline) if spans else None,
        "imex_active": imex,
        "imex_channel": channel,
    }


def domain(run: Run, deadline: float) -> str | None:
    """The NVLink domain that all GPUs of this host have joined; None where they have joined none, or do not say."""
    from . import nvidia_smi
    from .health import parse_smi_xml

    answer = run(["nvidia-smi", "-q", "-x"], deadline)
    try:
        return joined(parse_smi_xml(answer.stdout)) if nvidia_smi.answered(answer) else None
    except ValueError:
        return None


def domain_of(gpu: GpuHealth) -> str | None:
    """The NVLink domain and clique that a GPU has joined, as NVIDIA's device plugin writes them; None for none, or one that
    ends at the host, which has a cluster of zeros."""
    if gpu.fabric_state != "Completed" or gpu.fabric_cluster in (None, _NO_CLUSTER) or gpu.fabric_clique is None:
        return None
    return f"{gpu.fabric_cluster}.{gpu.fabric_clique}"


def joined(gpus: Iterable[GpuHealth]) -> str | None:
    """The one domain that all GPUs have joined; None unless they agree."""
    domains = {domain_of(gpu) for gpu in gpus}
    return domains.pop() if len(domains) == 1 else None
