"""The health of every GPU and of its links, as nvidia-smi tells it."""

from __future__ import annotations

import concurrent.futures
import re
from typing import Any
from xml.etree import ElementTree

from .state import Run, run_command, smi_failure

_SLOWDOWN = re.compile(r"clocks_(?:event|throttle)_reason_((?:hw|sw)_(?:\w+_)?slowdown)")


def parse_smi_xml(text: str) -> list[dict[str, Any]]:
    """The health of every GPU from ``nvidia-smi -q -x``; None for whatever this driver or GPU does not tell.

    Keys: ``pci``, ``name``, ``uuid``, ``performance_state``, ``persistence``, ``ecc`` and ``ecc_pending`` (bool),
    ``ecc_uncorrected`` (since the driver was loaded), ``remap_pending``, ``remap_failure``, ``slowdowns`` (reasons
    active now), ``pcie_generation``, ``pcie_generation_max``, ``pcie_width``, ``pcie_width_max``, ``fabric_state``,
    ``fabric_status``, ``processes`` [{pid, name, memory_mib}].

    Raises:
        ValueError: the text is not nvidia-smi's XML.
    """
    try:
        log = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"nvidia-smi -q -x gave no XML: {error}") from error
    return [_gpu_health(gpu) for gpu in log.iter("gpu")]


def _gpu_health(gpu: ElementTree.Element) -> dict[str, Any]:
    errors = gpu.find("ecc_errors/volatile")
    uncorrected = [_number(entry.text) for entry in errors if "uncorr" in entry.tag] if errors is not None else []
    counted = [count for count in uncorrected if count is not None]
    groups = ("clocks_event_reasons", "clocks_throttle_reasons")
    reasons = [entry for group in groups for entry in gpu.findall(f"{group}/*")]
    return {
        "pci": gpu.get("id"),
        "name": gpu.findtext("product_name"),
        "uuid": gpu.findtext("uuid"),
        "performance_state": gpu.findtext("performance_state"),
        "persistence": _flag(gpu.findtext("persistence_mode"), "Enabled", "Disabled"),
        "ecc": _flag(gpu.findtext("ecc_mode/current_ecc"), "Enabled", "Disabled"),
        "ecc_pending": _flag(gpu.findtext("ecc_mode/pending_ecc"), "Enabled", "Disabled"),
        "ecc_uncorrected": sum(counted) if counted else None,
        "remap_pending": _flag(gpu.findtext("remapped_rows/remapped_row_pending"), "Yes", "No"),
        "remap_failure": _flag(gpu.findtext("remapped_rows/remapped_row_failure"), "Yes", "No"),
        "slowdowns": sorted(
            {
                found.group(1)
                for entry in reasons
                if entry.text == "Active" and (found := _SLOWDOWN.fullmatch(entry.tag))
            }
        ),
        "pcie_generation": _number(gpu.findtext("pci/pci_gpu_link_info/pcie_gen/current_link_gen")),
        "pcie_generation_max": _number(gpu.findtext("pci/pci_gpu_link_info/pcie_gen/max_link_gen")),
        "pcie_width": _number(gpu.findtext("pci/pci_gpu_link_info/link_widths/current_link_width")),
        "pcie_width_max": _number(gpu.findtext("pci/pci_gpu_link_info/link_widths/max_link_width")),
        "fabric_state": _told(gpu.findtext("fabric/state")),
        "fabric_status": _told(gpu.findtext("fabric/status")),
        "processes": [
            {
                "pid": _number(entry.findtext("pid")),
                "name": entry.findtext("process_name"),
                "memory_mib": _number(entry.findtext("used_memory")),
            }
            for entry in gpu.findall("processes/process_info")
        ],
    }


def _number(text: str | None) -> int | None:
    found = re.match(r"\s*(\d+)", text or "")
    return int(found.group(1)) if found else None


def _flag(text: str | None, yes: str, no: str) -> bool | None:
    return {yes: True, no: False}.get((text or "").strip())


def _told(text: str | None) -> str | None:
    return None if (text or "").strip() in ("", "N/A", "[N/A]") else (text or "").strip()


def parse_nvlink(text: str) -> dict[str, list[bool]]:
    """Whether each NVLink is up, by GPU (its UUID), from ``nvidia-smi nvlink -s``; GPUs without links have none."""
    links: dict[str, list[bool]] = {}
    current: list[bool] = []
    for line in text.splitlines():
        if gpu := re.match(r"GPU \d+: .*\(UUID: ([^)]+)\)", line):
            current = links.setdefault(gpu.group(1), [])
        elif link := re.match(r"\s+Link \d+: (.+)", line):
            current.append(bool(re.match(r"[\d.]+ GB/s", link.group(1))))
    return links


def health(*, deadline: float = 10.0, run: Run = run_command) -> dict[str, Any]:
    """The health of every GPU and its links: ``{"gpus": [...], "nvlink": {uuid: [bool]}, "error": str or None}``.

    Two calls of nvidia-smi, side by side, neither longer than ``deadline`` seconds.
    """
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        full = pool.submit(run, ["nvidia-smi", "-q", "-x"], deadline)
        links = pool.submit(run, ["nvidia-smi", "nvlink", "-s"], deadline)
        answer, link_answer = full.result(), links.result()
    failure = smi_failure(answer)
    gpus: list[dict[str, Any]] = []
    if failure is None:
        try:
            gpus = parse_smi_xml(answer.stdout)
        except ValueError as error:
            failure = str(error)
    return {
        "gpus": gpus,
        "nvlink": parse_nvlink(link_answer.stdout) if link_answer.ok else {},
        "error": failure,
        "timed_out": answer.timed_out,
    }
