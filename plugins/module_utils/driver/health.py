"""The health of every GPU and of its links, as nvidia-smi reports it."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import re
from collections.abc import Mapping
from xml.etree import ElementTree

from ..core.commands import Run, run_command
from . import nvidia_smi

_SLOWDOWN = re.compile(r"clocks_(?:event|throttle)_reason_((?:hw|sw)_(?:\w+_)?slowdown)")


@dataclasses.dataclass(frozen=True)
class GpuHealth:
    """One GPU; None for whatever this driver or GPU does not report.

    Attributes:
        pci: its address.
        performance_state: ``P0`` (fastest) to ``P15``.
        persistence: whether persistence mode is on.
        ecc: whether ECC is on.
        ecc_uncorrected: errors since the driver was loaded.
        remap_pending: whether a row remap waits for a reset.
        remap_failure: whether a row could not be remapped.
        slowdowns: reasons for a slowdown that are active now.
        pcie_generation: of the link now.
        pcie_generation_max: of the link at best.
        pcie_width: lanes of the link now.
        pcie_width_max: lanes of the link at best.
        fabric_state: ``Completed`` once the GPU has joined the NVLink fabric.
        fabric_status: ``Success``, or how joining failed.
        fabric_cluster: UUID of the NVLink domain that it has joined; zeros where that ends at the host.
        fabric_clique: its part of that domain.
    """

    pci: str
    performance_state: str | None = None
    persistence: bool | None = None
    ecc: bool | None = None
    ecc_uncorrected: int | None = None
    remap_pending: bool | None = None
    remap_failure: bool | None = None
    slowdowns: tuple[str, ...] = ()
    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    fabric_state: str | None = None
    fabric_status: str | None = None
    fabric_cluster: str | None = None
    fabric_clique: str | None = None


@dataclasses.dataclass(frozen=True)
class Health:
    """All GPUs, whether each NVLink is up by GPU UUID, and why nvidia-smi could not report it."""

    gpus: tuple[GpuHealth, ...] = ()
    nvlink: Mapping[str, tuple[bool, ...]] = dataclasses.field(default_factory=dict)
    failure: nvidia_smi.Failure | None = None


def parse_smi_xml(text: str) -> tuple[GpuHealth, ...]:
    """The health of every GPU from ``nvidia-smi -q -x``.

    Raises:
        ValueError: the text is not nvidia-smi's XML.
    """
    try:
        log = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"nvidia-smi -q -x gave no XML: {error}") from error
    return tuple(_gpu_health(gpu) for gpu in log.iter("gpu"))


def _gpu_health(gpu: ElementTree.Element) -> GpuHealth:
    errors = gpu.find("ecc_errors/volatile")
    uncorrected = [_number(entry.text) for entry in errors if "uncorr" in entry.tag] if errors is not None else []
    counted = [count for count in uncorrected if count is not None]
    groups = ("clocks_event_reasons", "clocks_throttle_reasons")
    active = [entry.tag for group in groups for entry in gpu.findall(f"{group}/*") if entry.text == "Active"]
    slowdowns = {match.group(1) for tag in active if (match := _SLOWDOWN.fullmatch(tag))}
    return GpuHealth(
        pci=gpu.get("id") or "unknown",
        performance_state=gpu.findtext("performance_state"),
        persistence=_flag(gpu.findtext("persistence_mode"), "Enabled", "Disabled"),
        ecc=_flag(gpu.findtext("ecc_mode/current_ecc"), "Enabled", "Disabled"),
        ecc_uncorrected=sum(counted) if counted else None,
        remap_pending=_flag(gpu.findtext("remapped_rows/remapped_row_pending"), "Yes", "No"),
        remap_failure=_flag(gpu.findtext("remapped_rows/remapped_row_failure"), "Yes", "No"),
        slowdowns=tuple(sorted(slowdowns)),
        pcie_generation=_number(gpu.findtext("pci/pci_gpu_link_info/pcie_gen/current_link_gen")),
        pcie_generation_max=_number(gpu.findtext("pci/pci_gpu_link_info/pcie_gen/max_link_gen")),
        pcie_width=_number(gpu.findtext("pci/pci_gpu_link_info/link_widths/current_link_width")),
        pcie_width_max=_number(gpu.findtext("pci/pci_gpu_link_info/link_widths/max_link_width")),
        fabric_state=_text(gpu.findtext("fabric/state")),
        fabric_status=_text(gpu.findtext("fabric/status")),
        fabric_cluster=_text(gpu.findtext("fabric/clusterUuid")),
        fabric_clique=_text(gpu.findtext("fabric/cliqueId")),
    )


def _number(text: str | None) -> int | None:
    match = re.match(r"\s*(\d+)", text or "")
    return int(match.group(1)) if match else None


def _flag(text: str | None, yes: str, no: str) -> bool | None:
    return {yes: True, no: False}.get((text or "").strip())


def _text(text: str | None) -> str | None:
    return None if (text or "").strip() in ("", "N/A", "[N/A]") else (text or "").strip()


def parse_nvlink(text: str) -> dict[str, tuple[bool, ...]]:
    """Whether each NVLink is up, by GPU (its UUID), from ``nvidia-smi nvlink -s``; GPUs without links have none."""
    links: dict[str, list[bool]] = {}
    current: list[bool] = []
    for line in text.splitlines():
        if gpu := re.match(r"GPU \d+: .*\(UUID: ([^)]+)\)", line):
            current = links.setdefault(gpu.group(1), [])
        elif link := re.match(r"\s+Link \d+: (.+)", line):
            current.append(bool(re.match(r"[\d.]+ GB/s", link.group(1))))
    return {uuid: tuple(up) for uuid, up in links.items()}


def health(*, deadline: float = 10.0, run: Run = run_command) -> Health:
    """The health of every GPU and its links, by two calls of nvidia-smi side by side, each at most ``deadline`` seconds."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        full = pool.submit(run, ["nvidia-smi", "-q", "-x"], deadline)
        links = pool.submit(run, ["nvidia-smi", "nvlink", "-s"], deadline)
        result, link_result = full.result(), links.result()
    nvlink = parse_nvlink(link_result.stdout) if link_result.ok else {}
    failure = nvidia_smi.failure(result)
    if failure:
        return Health(nvlink=nvlink, failure=failure)
    try:
        return Health(parse_smi_xml(result.stdout), nvlink)
    except ValueError as error:
        return Health(nvlink=nvlink, failure={"code": "unreadable", "text": str(error)})
