"""What the driver gate says of Xids."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import kernel_log, xids
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.nvidia_smi import Gpu
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import driver_events
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.findings import Finding

CATALOGUE = xids.parse(data_tables.read("xids"), data_tables.read("nvlink5_xids"))
GPUS: list[Gpu] = [
    {"index": index, "name": "H100", "uuid": f"GPU-{index}", "memory_mib": 1, "pci": pci, "persistence": True}
    for index, pci in enumerate(("00000000:19:00.0", "00000000:9B:00.0"))
]


def finding(*lines: str) -> Finding:
    events = kernel_log.parse_xids([(float(at), line) for at, line in enumerate(lines)])
    (found,) = driver_events.findings(events, GPUS, CATALOGUE, "gpu1")
    return found


def test_the_worst_event_names_its_gpu_and_the_milder_ones_are_counted() -> None:
    mild = (
        "NVRM: Xid (PCI:0000:19:00): 145, RLW_SRC_TRACK Nonfatal XC1 i0 Link 12 (0x040988e2 0x00000008 0x0 0x0 0x0 0x0)"
    )
    worse = (
        "NVRM: Xid (PCI:0000:9b:00): 145, RLW_SRC_TRACK Fatal XC1 i0 Link 12 (0x040988e2 0x00000001 0x0 0x0 0x0 0x0)"
    )
    found = finding(mild, worse, mild)
    assert found.severity == "fail"
    assert found.cause == (
        "Xid 145 (NVLink error (RLW)) on GPU 1 (0000:9b:00), fatal, RLW_SRC_TRACK, 1 time since boot, last 1970-01-01T00:00:01Z; "
        "2 milder of the same code; look at NVIDIA's support, if it comes back"
    )


@pytest.mark.parametrize(
    ("line", "severity", "advice"),
    [
        (
            "NVRM: Xid (PCI:0000:19:00): 13, pid=7, name=python, Graphics SM Warp Exception",
            "warn",
            "Restart the process",
        ),
        ("NVRM: Xid (PCI:0000:19:00): 43, pid=7, name=python, Ch 00000008", "warn", "Nothing to do"),
        ("NVRM: Xid (PCI:0000:19:00): 48, An uncorrectable double bit error", "fail", "have the GPU seen to"),
        ("NVRM: Xid (PCI:0000:19:00): 119, pid=7, name=nvidia-smi, Timeout", "fail", "another driver version"),
        ("NVRM: Xid (PCI:0000:19:00): 79, GPU has fallen off the bus.", "fail", "Reboot gpu1 (if it comes back"),
        ("NVRM: Xid (PCI:0000:19:00): 54, no power", "fail", "remove gpu1 from the inventory"),
        ("nvidia-nvswitch0: SXid (PCI:0000:cb:00.0): 23001, Fatal, Link 12", "fail", "have the link seen to"),
    ],
)
def test_advice(line: str, severity: str, advice: str) -> None:
    found = finding(line)
    assert (found.severity, found.code) == (severity, "sxid" if "SXid" in line else "xid")
    assert advice in found.remediation


@pytest.mark.parametrize(
    ("device", "named"),
    [("0000:9b:00", "GPU 1 (0000:9b:00)"), ("9B:00", "GPU 9B:00"), ("0000:5e:00", "GPU 0000:5e:00")],
)
def test_a_gpu_is_named_by_number_and_address(device: str, named: str) -> None:
    assert f"on {named}," in finding(f"NVRM: Xid (PCI:{device}): 79, GPU has fallen off the bus.").cause
