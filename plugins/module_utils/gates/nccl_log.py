"""What NCCL's own log says that it used: the one reader of ``NCCL_DEBUG=INFO``. Pure.

The lines are those of NCCL 2.27 to 2.30 (tests/unit/fixtures/nccl has them, with their sources).
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable

from ..core import codes

SOCKETS = "Socket"
"""What NCCL calls its network of TCP sockets, which it takes where nothing else can be had."""


class Hint(codes.Code):
    """What a log says of why a faster network was not taken."""

    DISABLED = "disabled"
    """A variable forbids it (``NCCL_IB_DISABLE``, ``NCCL_NET``)."""
    NO_DEVICE = "no_device"
    """NCCL's own InfiniBand network found no device through libibverbs."""
    PLUGIN_FAILED = "plugin_failed"
    """A plugin for the network was loaded and could not be used."""
    NO_PLUGIN = "no_plugin"
    """No plugin was found."""
    MNNVL_DISABLED = "mnnvl_disabled"
    """A variable forbids NVLink between hosts (``NCCL_MNNVL_ENABLE``, or what that needs)."""


@dataclasses.dataclass(frozen=True)
class Said:
    """What the ranks of one host said.

    Attributes:
        networks: what communicators took: ``IB``, ``Socket``, or a plugin's name; more than one where ranks differ.
        devices: of NCCL's InfiniBand network, as it found them.
        interfaces: of its sockets.
        direct: connections over the network from the GPU's memory (GPUDirect RDMA).
        staged: connections over the network through the host's memory.
        shared_memory: connections within the host through its memory.
        across_nvlink: connections over NVLink of several hosts (MNNVL).
        channels: of collectives; None where nothing was said.
        nvls_channels: of those that use multicast of NVSwitches; None where nothing was said.
        mnnvl: whether a communicator took NVLink between hosts.
        hosts: how many hosts the largest communicator spans.
        chosen: whether a variable names the devices that NCCL may use.
        hints: why a faster network was not taken.
    """

    networks: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    direct: int = 0
    staged: int = 0
    shared_memory: int = 0
    across_nvlink: int = 0
    channels: int | None = None
    nvls_channels: int | None = None
    mnnvl: bool = False
    hosts: int = 0
    chosen: bool = False
    hints: tuple[Hint, ...] = ()

    @property
    def needs_network(self) -> bool:
        """Whether anything was to cross a network: where all hosts are joined by NVLink nothing is."""
        return not self.mnnvl or bool(self.direct + self.staged)

    @property
    def gdr(self) -> bool | None:
        """Whether all connections over the network leave the GPU's memory directly; None without any."""
        return None if not self.direct + self.staged else not self.staged


_LINE = re.compile(r"NCCL (?:INFO|WARN) (.*)")
_NAME = r"[A-Za-z0-9_.@-]{1,40}"  # a user wrote the log: what is shown of it is names and numbers
_PORT = re.compile(rf"\[\d+\]({_NAME}):(\d{{1,3}})/")
_INTERFACE = re.compile(rf"\[\d+\]({_NAME}):")
_DATA_DIRECT = "_dma"
"""What NCCL puts behind the name of a device that reaches GPUs by a PCI function of its own (ConnectX-8)."""
_MOST_NAMES = 64
_HINTS: tuple[tuple[str, Hint], ...] = (
    (r"NCCL_IB_DISABLE set by environment to (?!0\b)\d", Hint.DISABLED),
    (r"NCCL_NET set by environment to Socket\b", Hint.DISABLED),
    (r"NET/IB : No device found", Hint.NO_DEVICE),
    (r"NET/OFI (?:No eligible providers were found|\S+ initialization failed|Initializing plugin failed)", Hint.PLUGIN_FAILED),
    (r"NET/Plugin: Could not find: libnccl-net\.so", Hint.NO_PLUGIN),
    (r"NCCL_(?:MNNVL|CUMEM)_ENABLE set by environment to 0|NCCL_P2P_DISABLE set by environment to 1", Hint.MNNVL_DISABLED),
)  # fmt: skip


def parse(text: str) -> Said:
    """What the logs of one host's ranks say; lines that are not known are passed over."""
    said: dict[str, list[str]] = {"networks": [], "devices": [], "interfaces": []}
    counts = dict.fromkeys(("direct", "staged", "shared_memory", "across_nvlink"), 0)
    channels: list[int] = []
    multicast: list[int] = []
    hosts, mnnvl, chosen = 0, False, False
    hints: list[Hint] = []
    for line in _LINE.findall(text):
        if match := re.match(rf"Using network ({_NAME}(?: {_NAME})?)", line):
            said["networks"].append(match[1])
        elif match := re.match(r"NET/(IB|Socket) : Using (\[\d+\].*)", line):
            if match[1] == "IB":
                ports = [
                    (name.removesuffix(_DATA_DIRECT), port)
                    for name, port in _PORT.findall(match[2].partition("; OOB")[0])
                ]
                said["devices"] += [name if port == "1" else f"{name}:{port}" for name, port in ports]
            else:
                said["interfaces"] += _INTERFACE.findall(match[2])
        elif match := re.match(r"Channel \S+ : .+? via (.+)", line):
            if kind := _path(match[1]):
                counts[kind] += 1
        elif match := re.match(r"(\d{1,6}) coll channels,(?: \d+ collnet channels,)? (\d{1,6}) nvls channels", line):
            channels.append(int(match[1]))
            multicast.append(int(match[2]))
        elif match := re.match(r"comm \S+ rank \d+ nRanks \d+ nNodes (\d{1,6}) .*\bMNNVL (\d)", line):
            hosts = max(hosts, int(match[1]))
            mnnvl = mnnvl or match[2] != "0"
        elif re.match(r"NCCL_IB_HCA set (?:by environment )?to ", line):
            chosen = True
        else:
            hints += [hint for pattern, hint in _HINTS if re.search(pattern, line)]
    return Said(
        networks=_once(said["networks"]),
        devices=_once(said["devices"]),
        interfaces=_once(said["interfaces"]),
        direct=counts["direct"],
        staged=counts["staged"],
        shared_memory=counts["shared_memory"],
        across_nvlink=counts["across_nvlink"],
        channels=max(channels, default=None),
        nvls_channels=max(multicast, default=None),
        mnnvl=mnnvl,
        hosts=hosts,
        chosen=chosen,
        hints=tuple(hint for hint in Hint if hint in hints),
    )


def _path(path: str) -> str | None:
    """Which kind of connection ``NET/IB/0/GDRDMA``, ``P2P/MNNVL`` or ``SHM/direct/direct`` is."""
    if path.startswith("NET/"):
        return "direct" if "/GDRDMA" in path else "staged"
    if path.startswith("SHM"):
        return "shared_memory"
    return "across_nvlink" if path.startswith("P2P/MNNVL") else None


def _once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(itertools.islice(dict.fromkeys(values), _MOST_NAMES))
