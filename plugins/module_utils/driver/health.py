"""The health of every GPU and of its links, as nvidia-smi reports it."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import re
from xml.etree import ElementTree

from ..core.commands import Run, run_command
from . import nvidia_smi, smi_fields
from .readings import figure, reading
from .smi_fields import Flag, Unread


@dataclasses.dataclass(frozen=True)
class GpuHealth:
    """One GPU; None for whatever this driver or GPU does not report.

    Attributes:
        pci: its address.
        index: its number in nvidia-smi.
        model: its name.
        flags: fields whose values call for something.
        unread: fields that the card did not answer.
        performance_state: ``P0`` (fastest) to ``P15``.
        ecc_uncorrected: errors since the driver was loaded.
        pcie_generation: of the link now.
        pcie_generation_max: of the link at best.
        pcie_width: lanes of the link now.
        pcie_width_max: lanes of the link at best.
        fabric_state: ``Completed`` once the GPU has joined the NVLink fabric.
        fabric_status: ``Success``, or how joining failed, in NVML's words.
        fabric_cluster: UUID of the NVLink domain that it has joined; zeros where that ends at the host.
        fabric_clique: its part of that domain.
    """

    pci: str
    index: int = 0
    model: str | None = None
    flags: tuple[Flag, ...] = ()
    unread: tuple[Unread, ...] = ()
    performance_state: str | None = None
    ecc_uncorrected: int | None = None
    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    fabric_state: str | None = None
    fabric_status: str | None = None
    fabric_cluster: str | None = None
    fabric_clique: str | None = None


@dataclasses.dataclass(frozen=True)
class Links:
    """The NVLinks of one GPU, by number: 10^9 bytes per second and direction, 0 for one that is down; none without NVLink."""

    index: int
    model: str
    uuid: str
    rates: tuple[float, ...] = ()

    @property
    def up(self) -> tuple[bool, ...]:
        """Whether each is up, by number."""
        return tuple(rate > 0 for rate in self.rates)


@dataclasses.dataclass(frozen=True)
class Health:
    """All GPUs, their NVLinks, what nvidia-smi warned of, and why it could not report."""

    gpus: tuple[GpuHealth, ...] = ()
    nvlink: tuple[Links, ...] = ()
    warnings: tuple[nvidia_smi.SmiWarning, ...] = ()
    failure: nvidia_smi.Failure | None = None


def parse_smi_xml(text: str) -> tuple[GpuHealth, ...]:
    """The health of every GPU from ``nvidia-smi -q -x``, which may warn of something after its XML.

    Raises:
        ValueError: the text is not nvidia-smi's XML.
    """
    document, end, _after = text.partition("</nvidia_smi_log>")
    try:
        log = ElementTree.fromstring(document + end)
    except ElementTree.ParseError as error:
        raise ValueError(f"nvidia-smi -q -x gave no XML: {error}") from error
    return tuple(_gpu_health(index, gpu) for index, gpu in enumerate(log.iter("gpu")))


def _gpu_health(index: int, gpu: ElementTree.Element) -> GpuHealth:
    link = "pci/pci_gpu_link_info"
    return GpuHealth(
        pci=gpu.get("id") or "unknown",
        index=index,
        model=figure(reading(gpu.findtext("product_name"))),
        flags=smi_fields.flags(gpu),
        unread=smi_fields.unread(gpu),
        performance_state=figure(reading(gpu.findtext("performance_state"))),
        ecc_uncorrected=_uncorrected(gpu),
        pcie_generation=_number(gpu.findtext(f"{link}/pcie_gen/current_link_gen")),
        pcie_generation_max=_number(gpu.findtext(f"{link}/pcie_gen/max_link_gen")),
        pcie_width=_number(gpu.findtext(f"{link}/link_widths/current_link_width")),
        pcie_width_max=_number(gpu.findtext(f"{link}/link_widths/max_link_width")),
        fabric_state=_text(gpu.findtext("fabric/state")),
        fabric_status=_text(gpu.findtext("fabric/status")),
        fabric_cluster=_text(gpu.findtext("fabric/clusterUuid")),
        fabric_clique=_text(gpu.findtext("fabric/cliqueId")),
    )


def _uncorrected(gpu: ElementTree.Element) -> int | None:
    """Uncorrected errors since the driver was loaded: by kind from Turing's successors on, ``double_bit`` before."""
    errors = gpu.find(smi_fields.COUNTED)
    if errors is None:
        return None
    counts = [_number(entry.text) for entry in errors if "uncorr" in entry.tag]
    places = errors.find("double_bit")
    if places is not None:
        total = _number(places.findtext("total"))
        parts = [_number(entry.text) for entry in places if entry.tag != "total"]
        counts.append(total if total is not None else sum(filter(None, parts)) if any(parts) else None)
    counted = [count for count in counts if count is not None]
    return sum(counted) if counted else None


def _number(text: str | None) -> int | None:
    match = re.match(r"\s*(\d+)", text or "")
    return int(match.group(1)) if match else None


def _text(text: str | None) -> str | None:
    return None if (text or "").strip() in ("", "N/A", "[N/A]") else (text or "").strip()


def parse_nvlink(text: str) -> tuple[Links, ...]:
    """The links of every GPU from ``nvidia-smi nvlink -s``."""
    found: list[Links] = []
    for line in text.splitlines():
        if gpu := re.match(r"GPU (\d+): (.*) \(UUID: ([^)]+)\)", line):
            found.append(Links(int(gpu[1]), gpu[2].strip(), gpu[3]))
        elif found and (link := re.match(r"\s+Link \d+: (.+)", line)):
            rate = re.match(r"(\d+(?:\.\d+)?) GB/s", link[1])
            found[-1] = dataclasses.replace(found[-1], rates=(*found[-1].rates, float(rate[1]) if rate else 0.0))
    return tuple(found)


def nvlink(deadline: float, run: Run = run_command) -> tuple[Links, ...]:
    """The links of every GPU of this host; none where nvidia-smi does not say."""
    answer = run(["nvidia-smi", "nvlink", "-s"], deadline)
    return parse_nvlink(answer.stdout) if nvidia_smi.answered(answer) else ()


def health(*, deadline: float = 10.0, run: Run = run_command) -> Health:
    """The health of every GPU and its links, by two calls of nvidia-smi side by side, each at most ``deadline`` seconds."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        full = pool.submit(run, ["nvidia-smi", "-q", "-x"], deadline)
        asked = pool.submit(nvlink, deadline, run)
        result, links = full.result(), asked.result()
    warned = tuple(nvidia_smi.warnings(result))
    failure = nvidia_smi.failure(result)
    if failure:
        return Health(nvlink=links, failure=failure)
    try:
        return Health(parse_smi_xml(result.stdout), links, warned)
    except ValueError as error:
        return Health(nvlink=links, failure={"code": "unreadable", "text": str(error)})
