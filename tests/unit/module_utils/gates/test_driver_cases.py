"""Cases that people reported of real hosts, from their files: the driver gate's verdict (docs/evidence/cases.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import health as gpu_health
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import kernel_log, nvidia_smi, xids
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.health import Health
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import driver as driver_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.driver import Expected
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult
from tests.unit.module_utils.gates.driver_states import STATE

CASES = Path(__file__).parents[2] / "fixtures/cases"
EVIDENCE = Path(__file__).parents[4] / "docs/evidence"
CATALOGUE = xids.parse(data_tables.read("xids"), data_tables.read("nvlink5_xids"))


def text(name: str) -> str:
    return (CASES / name).read_text()


def gate(
    *,
    q_x: str | None = None,
    nvlink: str | None = None,
    log: str = "",
    state: dict[str, Any] | None = None,
    expected: Expected | None = None,
) -> GateResult:
    """The gate on a host without NVSwitches or packages, whose nvidia-smi and kernel say this."""
    health = Health(
        gpu_health.parse_smi_xml(q_x) if q_x else (), gpu_health.parse_nvlink(nvlink) if nvlink is not None else ()
    )
    number = max(len(health.gpus), 1)
    messages = [(float(at), line) for at, line in enumerate(log.splitlines())]
    read = {
        **STATE,
        "packages": {},
        "package_versions": [],
        "package_version": None,
        "fabric_manager": None,
        "nvswitches": 0,
        "gpus": (STATE["gpus"] * number)[:number],
        "xids": kernel_log.parse_xids(messages),
        **(state or {}),
    }
    wanted = expected or Expected(None, gpus=number, packaged=False)
    return driver_gate.evaluate(read, health, wanted, catalogue=CATALOGUE, host="gpu1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "code", "said"),
    [
        ("smi-unknown-error/q-x.xml", "gpu_silent", "'Unknown Error'"),
        ("smi-unknown-error/q-x-lost.xml", "gpu_lost", "'GPU is lost'"),
    ],
)
def test_a_gpu_that_does_not_answer(file: str, code: str, said: str) -> None:
    result = gate(q_x=text(file))
    assert (result.verdict, result.code) == ("fail", code)
    assert "GPU 0 (00000000:00:1E.0)" in result.cause
    assert said in result.cause


def test_mig_left_on() -> None:
    result = gate(q_x=text("smi-mig-left-on/q-x.xml"))
    assert (result.verdict, result.code) == ("fail", "mig_on")
    assert "nvidia-smi -i 0 -mig 0" in result.cause


def test_double_bit_errors_and_a_page_that_waits_for_a_reboot() -> None:
    result = gate(q_x=text("smi-volta-double-bit/q-x.xml"))
    assert result.verdict == "fail"
    assert result.measured["findings"] == ["page_retirement_pending", "ecc_errors"]
    assert "3 uncorrected ECC errors" in result.cause
    assert "a page retirement waits for a reboot" in result.cause
    assert "Reboot gpu1" in result.cause


def test_a_width_that_a_cloud_never_exceeds_only_warns() -> None:
    q_x = text("smi-pcie-x8-in-clouds/q-x.xml")
    result = gate(q_x=q_x)
    assert result.verdict == "pass"
    assert ["set nvidia_driver_pcie_width: 8" in warning for warning in result.warnings] == [True]
    assert "reseated" not in " ".join(result.warnings)
    stated = gate(q_x=q_x, expected=Expected(None, gpus=1, packaged=False, pcie_width=8))
    assert (stated.verdict, stated.warnings) == ("pass", ())
    assert gate(q_x=q_x, expected=Expected(None, gpus=1, packaged=False, pcie_width=16)).code == "pcie_width"


def test_nvlinks_that_are_inactive_by_design() -> None:
    result = gate(nvlink=text("smi-nvlink-inactive-by-design/nvlink-s.txt"))
    assert (result.verdict, result.warnings) == ("pass", ())


def test_nvlinks_of_which_two_are_dead() -> None:
    result = gate(nvlink=text("smi-nvlink-inactive-by-design/nvlink-s-v100.txt"))
    assert (result.verdict, result.code) == ("fail", "nvlink_down")
    assert result.cause.startswith("GPU 3 (GPU-00000003-0000-0000-0000-000000000000): NVLink 3, 5 down. On gpu1: ")


def test_a_corrupt_inforom_warns() -> None:
    """nvidia-smi gives every figure and ends with 14."""
    status = int(text("smi-inforom-exit-14/exit-status.txt"))
    answer = CommandResult(status, text("smi-inforom-exit-14/query-gpu.csv"))
    assert nvidia_smi.failure(answer) is None
    gpus, warned = nvidia_smi.parse_gpus(answer.stdout), nvidia_smi.warnings(answer)
    assert len(gpus) == 1
    result = gate(state={"gpus": gpus, "smi_warnings": warned})
    assert result.verdict == "pass"
    assert result.measured["findings"] == ["inforom_corrupt"]
    assert "GPU 0000:00:1E.0: its infoROM is corrupted" in result.warnings[0]


def test_the_cause_is_never_a_table_s_header() -> None:
    header = text("smi-inforom-exit-14/query-gpu.csv").splitlines()[0]
    failed = nvidia_smi.failure(CommandResult(14, header))
    assert failed == {"code": "failed", "text": "nvidia-smi ended with 14: a card's infoROM is corrupted"}
    both = nvidia_smi.failure(CommandResult(15, f"{header}\nUnable to determine the device handle: GPU is lost"))
    assert both == {"code": "failed", "text": "Unable to determine the device handle: GPU is lost"}


def test_a_non_fatal_sxid_of_three_lines() -> None:
    result = gate(log=text("kmsg-sxid-three-lines/kmsg.txt"))
    assert result.verdict == "pass"
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("SXid 22013 on NVSwitch 0000:04:00.0, non-fatal, 2 times since boot")


@pytest.mark.parametrize(("file", "verdict"), [("kmsg.txt", "pass"), ("kmsg-fatal.txt", "fail")])
def test_an_xid_of_nvlink_5_is_as_bad_as_its_line_says(file: str, verdict: str) -> None:
    result = gate(log=text(f"kmsg-xid145-nonfatal/{file}"))
    assert result.verdict == verdict
    assert result.measured["findings"] == ["xid"]


def gpu_evidence(host: str, *names: str) -> Sequence[str]:
    return [(EVIDENCE / host / name).read_text() for name in names]


def test_a_healthy_h100_passes_without_a_word() -> None:
    (q_x,) = gpu_evidence("2026-11-26-h100-580.159.04", "nvidia-smi-q.xml")
    result = gate(q_x=q_x)
    assert (result.verdict, result.warnings) == ("pass", ())


def test_an_illegal_access_of_a_program_is_no_reason_to_have_the_gpu_seen_to() -> None:
    log, query = gpu_evidence("2026-11-26-h100-580.159.04", "dmesg-xid31.txt", "query.csv")
    result = gate(log=log, state={"gpus": nvidia_smi.parse_gpus(query)})
    (warning,) = result.warnings
    assert result.verdict == "pass"
    assert "GPU 0 (0000:00:06), 1 time since boot" in warning
    assert "python (pid 1217)" in warning
    assert "Restart the process" in warning
    assert "seen to" not in warning


def test_user_space_is_known_without_packages() -> None:
    (query,) = gpu_evidence("2026-11-26-h100-580.159.04", "query.csv")
    assert nvidia_smi.driver_version(query) == "580.159.04"
    assert nvidia_smi.driver_version("No devices were found") is None


def test_every_failure_has_a_next_command() -> None:
    bad = dataclasses.replace(Expected(None, gpus=1, packaged=False), pcie_width=16)
    for file in ("smi-unknown-error/q-x.xml", "smi-mig-left-on/q-x.xml", "smi-pcie-x8-in-clouds/q-x.xml"):
        assert gate(q_x=text(file), expected=bad).next
