"""What the health of GPUs and links means for the driver gate. Pure.

A figure that is below its best may be a fault, or how this machine was built. So it is compared with the cards of the same
model beside it, or with what the operator stated, and a lone card is only warned of.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence

from ..core.grouping import grouped
from ..driver.health import GpuHealth, Health, Links
from ..driver.nvidia_smi import SmiWarning
from ..driver.readings import Absence
from ..driver.smi_fields import Remedy, matters
from .findings import Finding, on_host, verify

_MOST_NAMED = 4


@dataclasses.dataclass(frozen=True)
class Machine:
    """What is known of the machine that the cards are in.

    Attributes:
        host: its name.
        nvswitches: how many NVSwitches it is known to have.
        pcie_width: lanes that the operator stated; None compares with the other cards.
    """

    host: str
    nvswitches: int = 0
    pcie_width: int | None = None


def findings(health: Health, machine: Machine) -> Iterator[Finding]:
    """What is wrong with the GPUs and links that nvidia-smi reported on, but for NVLink fabrics (``fabric.membership``)."""
    for gpu in health.gpus:
        yield from _unread(gpu, machine.host)
        yield from _flags(gpu, machine.host)
        yield from _figures(gpu, machine.host)
    yield from _widths(health.gpus, machine)
    switched = machine.nvswitches > 0 or any(gpu.fabric_state for gpu in health.gpus)
    yield from _links(health.nvlink, switched, machine.host)


def warned(warnings: Sequence[SmiWarning]) -> Iterator[Finding]:
    """What nvidia-smi warned of although it gave its figures."""
    for code, gpu, text in dict.fromkeys((one["code"], one["gpu"], one["text"]) for one in warnings):
        if code == "inforom_corrupt":
            where = f"GPU {gpu}" if gpu else "a GPU"
            cause = (
                f"{where}: its infoROM is corrupted; it works on, and may have lost its serial number and ECC settings"
            )
            yield Finding(
                "inforom_corrupt", cause, "Ask the card's maker for a new infoROM, or have it replaced", "warn"
            )
        else:
            yield Finding("smi_warns", f"nvidia-smi: {text}", "See nvidia-smi -q", "warn")


def _where(gpu: GpuHealth) -> str:
    return f"GPU {gpu.index} ({gpu.pci})"


def _unread(gpu: GpuHealth, host: str) -> Iterator[Finding]:
    """A card that does not answer what every card answers, or that the driver has given up."""
    lost = [one for one in gpu.unread if one.absence is Absence.LOST]
    silent = [one for one in gpu.unread if one.absence is Absence.UNREADABLE and matters(one.field)]
    others = [one for one in gpu.unread if one.absence is Absence.UNREADABLE and not matters(one.field)]
    if lost:
        cause = f"{_where(gpu)} is lost: nvidia-smi says {lost[0].text!r} for {_named([one.field for one in lost])}"
        yield Finding("gpu_lost", cause, f"Reboot {host}, then {verify(host)}")
    elif silent:
        cause = f"{_where(gpu)} does not answer: nvidia-smi says {silent[0].text!r} for {_named([one.field for one in silent])}"
        yield Finding("gpu_silent", cause, f"On {host}: journalctl -k -g NVRM; reboot {host}, then {verify(host)}")
    elif others:
        cause = f"{_where(gpu)}: nvidia-smi says {others[0].text!r} for {_named([one.field for one in others])}"
        yield Finding("gpu_silent", cause, on_host(host, f"nvidia-smi -q -i {gpu.index}"), "warn")


def _named(fields: Sequence[str]) -> str:
    more = len(fields) - _MOST_NAMED
    return ", ".join(fields[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _flags(gpu: GpuHealth, host: str) -> Iterator[Finding]:
    """Fields whose values call for something; those of one code are one finding."""
    by_code = grouped(((flag.decision.code, flag.decision.severity), flag) for flag in gpu.flags)
    for (code, _severity), flags in by_code.items():
        words = ", ".join(dict.fromkeys(flag.words for flag in flags))
        decision = flags[0].decision
        yield Finding(code, f"{_where(gpu)}: {words}", remedy(decision.remedy, gpu.index, host), decision.severity)


def remedy(kind: Remedy, index: int, host: str) -> str:
    """What to type for it."""
    then = f"then {verify(host)}"
    return {
        Remedy.RESET: f"Reboot {host}, which resets the GPU, {then}",
        Remedy.REBOOT: f"Reboot {host}, {then}",
        Remedy.REPLACE: f"Have the GPU replaced; until then remove {host} from the inventory",
        Remedy.MIG_OFF: f"On {host}: nvidia-smi -i {index} -mig 0, reboot it where that stays pending, {then}",
        Remedy.ECC_ON: f"On {host}: nvidia-smi -i {index} -e 1, then reboot",
        Remedy.PERSISTENCE: on_host(host, "systemctl restart nvidia-persistenced"),
        Remedy.COMPUTE_MODE: on_host(host, f"nvidia-smi -i {index} -c DEFAULT"),
        Remedy.COOLING: f"See to cooling and power of {host}; on it: nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER",
        Remedy.FABRIC: on_host(host, "journalctl -b -u nvidia-fabricmanager"),
        Remedy.LOOK: on_host(host, f"nvidia-smi -q -i {index}"),
    }[kind]


def _figures(gpu: GpuHealth, host: str) -> Iterator[Finding]:
    where = _where(gpu)
    if gpu.ecc_uncorrected:
        yield Finding(
            "ecc_errors",
            f"{where}: {gpu.ecc_uncorrected} uncorrected ECC errors since the driver was loaded",
            remedy(Remedy.RESET, gpu.index, host),
        )
    idle = gpu.performance_state not in ("P0", None)  # then a GPU lowers its link to save power
    if not idle and gpu.pcie_generation is not None and gpu.pcie_generation < (gpu.pcie_generation_max or 0):
        yield Finding(
            "pcie_generation",
            f"{where}: PCIe generation {gpu.pcie_generation} of {gpu.pcie_generation_max}",
            f"On {host}: lspci -vv, LnkSta",
        )


def _widths(gpus: Sequence[GpuHealth], machine: Machine) -> Iterator[Finding]:
    """A PCIe link that is narrower than stated, or than that of another card of its model; or than it could be, to warn."""
    widest: dict[str | None, int] = collections.defaultdict(int)
    for gpu in gpus:
        widest[gpu.model] = max(widest[gpu.model], gpu.pcie_width or 0)
    for gpu in gpus:
        if gpu.pcie_width is None:
            continue
        due = machine.pcie_width or widest[gpu.model]
        if gpu.pcie_width < due:
            whose = "is stated" if machine.pcie_width else f"other {gpu.model or 'cards'} here have"
            cause = f"{_where(gpu)}: PCIe x{gpu.pcie_width}, x{due} {whose}"
            yield Finding("pcie_width", cause, f"Have the card and its riser reseated in {machine.host}")
        elif machine.pcie_width is None and gpu.pcie_width < (gpu.pcie_width_max or 0):
            yield Finding(
                "pcie_width",
                f"{_where(gpu)}: PCIe x{gpu.pcie_width}, the card could x{gpu.pcie_width_max}, and no card here has more",
                f"If these hosts are built so, set nvidia_driver_pcie_width: {gpu.pcie_width}",
                "warn",
            )


def _links(links: Sequence[Links], switched: bool, host: str) -> Iterator[Finding]:
    """NVLinks that are down and should not be.

    Behind NVSwitches (``switched``) every link is wired. Bridged cards leave some unused, the same number on each card of the
    model: so one with fewer than another of its model has some down, and so has a lone card of which some are up. None up
    anywhere is a machine without NVLink, and none on one card of an odd number a card that found no partner: a bridge that
    fails takes the links of two.
    """
    if not any(any(one.up) for one in links):
        return
    siblings = grouped((one.model, one) for one in links)
    for one in links:
        best = max(siblings[one.model], key=lambda sibling: sum(sibling.up))
        due = switched or sum(one.up) < sum(best.up) or (len(siblings[one.model]) == 1 and any(one.up))
        down = [number for number, up in enumerate(one.up) if not up]
        if not due or (one.up and not down):
            continue
        if not switched:
            down = [number for number in down if number < len(best.up) and best.up[number]] or down
        without = [each for each in siblings[one.model] if not any(each.up)]
        if not switched and len(siblings[one.model]) % 2 and without == [one]:
            yield Finding(
                "nvlink_down",
                f"GPU {one.index} ({one.uuid}): no NVLink is up, as on a card without a bridge; others of its model have some",
                f"If GPU {one.index} of {host} should be on a bridge, have that reseated",
                "warn",
            )
            continue
        shown = ", ".join(map(str, down)) or "absent"
        yield Finding(
            "nvlink_down",
            f"GPU {one.index} ({one.uuid}): NVLink {shown} down",
            f"On {host}: nvidia-smi nvlink -e, and journalctl -k -g NVLink",
        )
