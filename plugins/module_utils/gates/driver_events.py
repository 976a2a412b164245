"""What Xids and SXids since boot mean for the driver gate. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..driver import xids
from ..driver.kernel_log import XidEvent
from ..driver.nvidia_smi import Gpu
from ..driver.xids import Action, Catalogue, Cause, LookAt, Seen
from .findings import Finding, verify

_HINTS = {
    LookAt.LINK: "the signal of the link",
    LookAt.CABLES: "the link and its cables",
    LookAt.PEER: "the device at the other end of the link",
    LookAt.SOFTWARE: "what stopped or changed the link",
    LookAt.HOST: "the host",
    LookAt.OTHERS: "other Xids of that time",
    LookAt.SUPPORT: "NVIDIA's support, if it comes back",
}
_AFTERWARDS = {
    Cause.APPLICATION: "",
    Cause.DRIVER: " (if it comes back, another driver version: docs/reference/known-issues.md)",
    Cause.HARDWARE: " (if it comes back, have the GPU seen to)",
    Cause.FABRIC: " (if it comes back, have the link seen to)",
}


def findings(events: Sequence[XidEvent], gpus: Sequence[Gpu], catalogue: Catalogue, host: str) -> Iterator[Finding]:
    """A finding for each code, which names the devices and what ends it; the worst event of a code decides."""
    for seen in xids.assess(events, catalogue):
        yield Finding(seen.kind.lower(), _cause(seen, gpus), _remediation(seen, host), "fail" if seen.fails else "warn")


def _cause(seen: Seen, gpus: Sequence[Gpu]) -> str:
    meaning = f" ({seen.row.meaning})" if seen.row else ""
    worst = "; ".join(_described(event, gpus) for event in seen.worst)
    milder = sum(event["count"] for event in seen.others)
    hints = ", ".join(_HINTS[hint] for hint in seen.look_at if hint in _HINTS)
    return "".join(
        (
            f"{seen.kind} {seen.code}{meaning} on {worst}",
            f"; {milder} milder of the same code" if milder else "",
            f"; look at {hints}" if hints else "",
        )
    )


def _described(event: XidEvent, gpus: Sequence[Gpu]) -> str:
    worded = {"fatal": ", fatal", "non_fatal": ", non-fatal", None: ""}[event["severity"]]
    unit = f", {event['unit']}" if event["unit"] else ""
    by = f", last by {event['process']}" if event["process"] else ""
    times = f"{event['count']} time{'s' if event['count'] > 1 else ''} since boot, last {event['last']}"
    return f"{device(event, gpus)}{worded}{unit}, {times}{by}"


def device(event: XidEvent, gpus: Sequence[Gpu]) -> str:
    """The GPU by its number and PCI address, or the NVSwitch by its address."""
    if event["kind"] == "SXid":
        return f"NVSwitch {event['device']}"
    numbers = {slot(gpu["pci"]): gpu["index"] for gpu in gpus if gpu.get("pci")}
    number = numbers.get(slot(event["device"]))
    return f"GPU {event['device']}" if number is None else f"GPU {number} ({event['device']})"


def slot(pci: str | None) -> tuple[int, ...]:
    """Domain, bus and device of a PCI address, whichever way it is written."""
    parts = re.findall(r"[0-9a-fA-F]+", (pci or "").partition(".")[0])
    return tuple(int(part, 16) for part in parts)


def _remediation(seen: Seen, host: str) -> str:
    cause = seen.row.cause if seen.row else (Cause.FABRIC if seen.kind == "SXid" else Cause.HARDWARE)
    if seen.action is Action.IGNORE:
        return f"Nothing to do; its lines, on {host}: journalctl -k -g Xid"
    if seen.action is Action.RESTART_PROCESS:
        whose = "the program's own fault, " if cause is Cause.APPLICATION else ""
        return (
            f"Restart the process if it still runs ({whose}the GPU goes on); its lines, on {host}: journalctl -k -g Xid"
        )
    if seen.action is Action.REPLACE:
        return f"Have the GPU in {host} seen to or replaced; until then remove {host} from the inventory"
    resets = ", which resets the GPU" if seen.action is Action.RESET else ""
    return f"Reboot {host}{resets}{_AFTERWARDS[cause]}, then {verify(host)}"
