"""What each field of ``nvidia-smi -q -x`` calls for: a pure table, and its reading of one GPU.

``RULES`` has the fields that are checked by their value alone; figures that are compared (ECC counts, PCIe, NVLink) are checked
in ``gates/driver_gpus.py``. docs/reference/nvidia-smi.md has a decision for every field of every branch that was read;
``tests/unit/module_utils/driver/test_smi_fields.py`` walks it against these tables.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Literal
from xml.etree import ElementTree

from ..core.codes import Code
from .readings import Absence, reading

Severity = Literal["fail", "warn"]
OTHER = "*"
"""Any value that is neither listed nor fine."""


class Remedy(Code):
    """What ends it."""

    RESET = "reset"
    REBOOT = "reboot"
    REPLACE = "replace"
    MIG_OFF = "mig_off"
    ECC_ON = "ecc_on"
    PERSISTENCE = "persistence"
    COMPUTE_MODE = "compute_mode"
    COOLING = "cooling"
    FABRIC = "fabric"
    LOOK = "look"


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a value of a field means: the code of the finding, the words for it, and what ends it.

    ``{value}`` in ``words`` is the field's value.
    """

    code: str
    words: str
    remedy: Remedy
    severity: Severity = "fail"


@dataclasses.dataclass(frozen=True)
class Flag:
    """A field of a GPU that calls for something."""

    field: str
    decision: Decision
    words: str


@dataclasses.dataclass(frozen=True)
class Unread:
    """A field of which the card gave no figure, and how nvidia-smi said so."""

    field: str
    absence: Absence
    text: str


_PAGES = Decision("page_retirement_pending", "a page retirement waits for a reboot", Remedy.REBOOT)
_RESET = Decision("recovery_action", "the driver asks for a reset of this GPU", Remedy.RESET)
_REBOOT = Decision("recovery_action", "the driver asks for a reboot of the host", Remedy.REBOOT)
_DRAIN = Decision("recovery_action", "the driver asks to drain this GPU and reset it", Remedy.RESET)
_SLOW = {
    "hw_slowdown": "hardware slowdown",
    "hw_thermal_slowdown": "hardware slowdown by heat",
    "hw_power_brake_slowdown": "power brake",
    "sw_thermal_slowdown": "slowdown by heat",
}
RULES: Mapping[str, Mapping[str, Decision | None]] = {
    "persistence_mode": {"Disabled": Decision("persistence_off", "persistence is off", Remedy.PERSISTENCE)},
    "mig_mode/current_mig": {
        "Enabled": Decision("mig_on", "MIG is on: a process sees one slice, and vLLM and NCCL need whole GPUs", Remedy.MIG_OFF)
    },
    "compute_mode": {
        "Prohibited": Decision("compute_mode", "compute mode {value} lets no process use it", Remedy.COMPUTE_MODE),
        "Exclusive_Process": Decision("compute_mode", "compute mode {value} admits one process", Remedy.COMPUTE_MODE, "warn"),
        "Exclusive_Thread": Decision("compute_mode", "compute mode {value} admits one thread", Remedy.COMPUTE_MODE, "warn"),
    },
    "ecc_mode/current_ecc": {"Disabled": Decision("ecc_off", "ECC is off", Remedy.ECC_ON, "warn")},
    "gpu_recovery_action": {
        "None": None,
        "Reset": _RESET, "GPU Reset": _RESET, "Bus Reset": _RESET, "Drain and Reset": _DRAIN,
        "Drain P2P": Decision("recovery_action", "the driver asks to end what reaches this GPU from others", Remedy.RESET),
        "Reboot": _REBOOT, "Node Reboot": _REBOOT, "System Reboot": _REBOOT, "Recover IMEX Domain": _REBOOT,
        OTHER: Decision("recovery_action", "the driver asks for: {value}", Remedy.REBOOT),
    },
    "gpu_reset_status/reset_required": {"Yes": _RESET},
    "gpu_reset_status/drain_and_reset_recommended": {"Yes": _DRAIN},
    "remapped_rows/remapped_row_failure": {
        "Yes": Decision("row_remap_failed", "a row could not be remapped", Remedy.REPLACE)
    },
    "remapped_rows/remapped_row_pending": {
        "Yes": Decision("row_remap_pending", "a row remap waits for a reset", Remedy.RESET)
    },
    "retired_pages/pending_retirement": {"Yes": _PAGES},
    "retired_pages/pending_blacklist": {"Yes": _PAGES},
    "ecc_errors/channel_repair_pending": {
        "Yes": Decision("repair_pending", "a repair of a memory channel waits for a reset", Remedy.RESET)
    },
    "ecc_errors/tpc_repair_pending": {
        "Yes": Decision("repair_pending", "a repair of a TPC waits for a reset", Remedy.RESET)
    },
    "ecc_errors/unrepairable_memory": {
        "Yes": Decision("memory_unrepairable", "memory that cannot be repaired", Remedy.REPLACE)
    },
    "ecc_errors/aggregate/sram_threshold_exceeded": {
        "Yes": Decision("memory_unrepairable", "more uncorrectable SRAM errors than NVIDIA tolerates", Remedy.REPLACE)
    },
    "fabric/health/summary": {
        "Unhealthy": Decision("fabric_not_ready", "its NVLink fabric is unhealthy", Remedy.FABRIC),
        "Limited Capacity": Decision("fabric_not_ready", "its NVLink fabric has limited capacity", Remedy.FABRIC, "warn"),
    },
    "fabric/health/bandwidth": {
        "Degraded": Decision("fabric_not_ready", "its NVLink fabric has less bandwidth", Remedy.FABRIC, "warn")
    },
    "fabric/health/route_unhealthy": {
        "True": Decision("fabric_not_ready", "a route of its NVLink fabric is unhealthy", Remedy.FABRIC)
    },
    "fabric/health/access_timeout_recovery": {
        "True": Decision("fabric_not_ready", "its NVLink fabric recovers from a time-out", Remedy.FABRIC, "warn")
    },
    "fabric/health/route_recovery_in_progress": {
        "True": Decision("fabric_not_ready", "its NVLink fabric recovers a route", Remedy.FABRIC, "warn")
    },
    **{
        f"clocks_{group}_reasons/clocks_{group}_reason_{reason}": {"Active": Decision("throttled", words, Remedy.COOLING)}
        for group in ("event", "throttle")
        for reason, words in _SLOW.items()
    },
}  # fmt: skip
PENDING: Mapping[tuple[str, str], Decision] = {
    ("mig_mode/current_mig", "mig_mode/pending_mig"): Decision(
        "mig_on", "MIG will be {value} after the next reset", Remedy.MIG_OFF, "warn"
    ),
    ("ecc_mode/current_ecc", "ecc_mode/pending_ecc"): Decision(
        "ecc_off", "ECC will be {value} after the next reboot", Remedy.ECC_ON, "warn"
    ),
}
"""Pairs of the mode now and after a reset; they call for something where they differ."""
UNKNOWN = Decision("field_unknown", "{field} is {value}, which Lockstep does not know", Remedy.LOOK, "warn")
"""Of a field that no branch had which was read, and whose name says that it calls for something."""
_ASKS = r"pending|required|recommended|fail|exceeded|unhealthy|unrepairable|degraded"
EVERY_CARD_HAS = (
    "performance_state",
    "temperature/gpu_temp",
    "clocks_event_reasons",
    "clocks_throttle_reasons",
    "fb_memory_usage/total",
    "pci/pci_gpu_link_info/pcie_gen/current_link_gen",
    "pci/pci_gpu_link_info/link_widths/current_link_width",
)
"""Figures that a card gives while it answers at all."""
COUNTED = "ecc_errors/volatile"
COMPARED = (
    "performance_state",
    "pci/pci_gpu_link_info/pcie_gen/max_link_gen",
    "pci/pci_gpu_link_info/pcie_gen/current_link_gen",
    "pci/pci_gpu_link_info/link_widths/max_link_width",
    "pci/pci_gpu_link_info/link_widths/current_link_width",
    "fabric/state",
    "fabric/status",
)
"""Figures that gates/driver_gpus.py compares with those of other cards, or with a figure beside them."""
CHECKED = (*RULES, *(field for pair in PENDING for field in pair), *EVERY_CARD_HAS, *COMPARED)


def flags(gpu: ElementTree.Element) -> tuple[Flag, ...]:
    """The fields of this GPU whose values call for something."""
    found = []
    for field, rules in RULES.items():
        value = reading(gpu.findtext(field))
        decision = rules.get(value, rules.get(OTHER)) if isinstance(value, str) else None
        if decision:
            found.append(Flag(field, decision, decision.words.format(value=value)))
    for (now, later), decision in PENDING.items():
        current, pending = reading(gpu.findtext(now)), reading(gpu.findtext(later))
        if isinstance(current, str) and isinstance(pending, str) and current != pending:
            found.append(Flag(later, decision, decision.words.format(value=pending.lower())))
    return (*found, *_unknown(gpu))


def _unknown(gpu: ElementTree.Element) -> Iterator[Flag]:
    for field, text in _leaves(gpu):
        if re.search(_ASKS, field.rpartition("/")[2]) and field not in CHECKED and text in ("Yes", "True"):
            yield Flag(field, UNKNOWN, UNKNOWN.words.format(field=field, value=text))


def unread(gpu: ElementTree.Element) -> tuple[Unread, ...]:
    """Every field of this GPU that the card did not answer."""
    found = ((field, reading(text), text) for field, text in _leaves(gpu))
    return tuple(
        Unread(field, value, text) for field, value, text in found if value in (Absence.UNREADABLE, Absence.LOST)
    )


def _leaves(element: ElementTree.Element, path: str = "") -> Iterator[tuple[str, str]]:
    """Every field that holds text and no other fields, with that text."""
    for child in element:
        field = f"{path}/{child.tag}" if path else child.tag
        if len(child):
            yield from _leaves(child, field)
        else:
            yield field, (child.text or "").strip()


def matters(field: str) -> bool:
    """Whether a verdict depends on this field, so that a card that does not answer it cannot pass."""
    return field in CHECKED or any(field.startswith(f"{group}/") for group in (COUNTED, *EVERY_CARD_HAS))
