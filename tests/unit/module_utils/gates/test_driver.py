"""What the driver gate passes, fails and warns of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import commands, data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import health as gpu_health
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import kernel_log, known_issues, nvidia_smi, xids
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import state as driver_state
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.health import GpuHealth, Health, Links
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.module_file import Lookup, ModuleFile
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import driver as driver_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.driver import Expected
from tests.unit.module_utils.gates.driver_states import STATE, UUIDS, VERSION

GPU = GpuHealth(
    pci="00000000:19:00.0",
    model="NVIDIA H100 80GB HBM3",
    performance_state="P0",
    ecc_uncorrected=0,
    pcie_generation=5,
    pcie_generation_max=5,
    pcie_width=16,
    pcie_width_max=16,
    fabric_state="Completed",
    fabric_status="Success",
)
HEALTH = Health(
    (GPU, dataclasses.replace(GPU, index=1, pci="00000000:2D:00.0")),
    tuple(Links(index, "NVIDIA H100 80GB HBM3", uuid, (26.562,) * 18) for index, uuid in enumerate(UUIDS)),
)
FAILED = nvidia_smi.failure(CommandResult(18, "Failed to initialize NVML: Driver/library version mismatch"))
EXPECTED = Expected(VERSION, gpus=2, gpu_model="H100")
CATALOGUE = xids.parse(data_tables.read("xids"), data_tables.read("nvlink5_xids"))
SUSPECT = known_issues.Match("hangs", "suspect", "it hangs", "use another", "url", "low")
BAD = known_issues.Match("breaks", "bad", "it breaks", "use another", "url", "high")


def event(kind: str, code: int, message: str = "") -> kernel_log.XidEvent:
    """What the kernel log's reader makes of two messages."""
    prefix = "NVRM: Xid (PCI:0000:19:00)" if kind == "Xid" else "nvidia-nvswitch0: SXid (PCI:0000:cb:00.0)"
    (event,) = kernel_log.parse_xids([(at, f"{prefix}: {code}, {message}") for at in (0.0, 1.0)])
    return event


def evaluated(state: dict[str, Any] | None = None, gpu: dict[str, Any] | None = None, health: dict[str, Any] | None = None,
              expected: Expected = EXPECTED, **more: Any) -> Any:  # fmt: skip
    gpus = (dataclasses.replace(GPU, **gpu), HEALTH.gpus[1]) if gpu else HEALTH.gpus
    read = dataclasses.replace(HEALTH, **{"gpus": gpus, **(health or {})})
    return driver_gate.evaluate({**STATE, **(state or {})}, read, expected, catalogue=CATALOGUE, host="a1", **more)  # type: ignore[typeddict-item]


def test_a_healthy_host_passes_without_warnings() -> None:
    result = evaluated()
    assert (result.verdict, result.code, result.cause, result.warnings) == ("pass", "ok", "", ())
    assert result.measured == {"driver": VERSION, "gpus": 2, "findings": []}


@pytest.mark.parametrize(
    ("change", "code", "fragment"),
    [
        ({"package_versions": [], "package_version": None}, "package_missing", "no driver package"),
        ({"package_versions": ["550.90.07", VERSION], "package_version": None}, "packages_mixed", "550.90.07, 550.127.05"),
        ({"package_versions": ["550.90.07"], "package_version": "550.90.07"}, "package_differs", "550.90.07 is installed"),
        ({"userspace_version": "550.90.07"}, "userspace_differs", "something else than apt"),
        ({"loaded_version": None, "fabric_manager": None, "nvswitches": 0}, "module_not_loaded", "not loaded"),
        ({"loaded_version": "550.54.15"}, "module_differs", "loaded kernel module is 550.54.15"),
        ({"dpkg_interrupted": True}, "dpkg_interrupted", "interrupted"),
        ({"packages": {"libcuda1": {"version": "x", "hold": False, "broken": False}}}, "not_held", "not held"),
        ({"fabric_manager": None}, "fabric_manager_missing", "NVSwitches"),
        ({"fabric_manager": STATE["fabric_manager"] | {"package_version": "550.90.07"}}, "fabric_manager_differs", "550.90.07"),
        ({"fabric_manager": STATE["fabric_manager"] | {"version": "550.54.15"}}, "fabric_manager_differs", "550.54.15"),
        ({"fabric_manager": STATE["fabric_manager"] | {"active": False}}, "fabric_manager_inactive", "does not run"),
        ({"smi_failure": FAILED, "gpus": []}, "smi_fails", "NVML"),
        ({"gpus": STATE["gpus"][:1]}, "gpu_count", "1 GPUs answer, 2 are declared"),
        ({"gpus": [{"name": "NVIDIA A100", "uuid": "x"}] * 2}, "gpu_model", "NVIDIA A100"),
        ({"gpus": [{"name": "NVIDIA GH100", "uuid": "x"}] * 2}, "gpu_model", "NVIDIA GH100 found, H100 is declared"),
        ({"xids": [event("Xid", 79)]}, "xid", "Xid 79 (the GPU has fallen off the bus) on GPU 0000:19:00, 2 times since boot"),
        ({"xids": [event("Xid", 999)]}, "xid", "Xid 999 on GPU 0000:19:00, 2 times"),
        ({"xids": [event("SXid", 23001, "Fatal, Link 12 Always Fatal")]}, "sxid", "SXid 23001"),
        ({"pending_reboot": True, "pending_reboot_packages": ["libc6", "linux-image-6.1.0"]}, "pending_reboot",
         "pending for linux-image-6.1.0"),
    ],
)  # fmt: skip
def test_an_inconsistent_driver_fails(change: dict[str, Any], code: str, fragment: str) -> None:
    result = evaluated(change)
    assert (result.verdict, result.code) == ("fail", code)
    assert fragment in result.cause
    assert result.next.split()[0] in ("ansible", "ansible-playbook")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ecc_uncorrected": 3}, "ecc_errors"),
        ({"pcie_width": 8}, "pcie_width"),
        ({"pcie_generation": 3}, "pcie_generation"),
        ({"fabric_state": "In Progress", "fabric_status": None}, "fabric_not_ready"),
        ({"fabric_status": "Failure"}, "fabric_not_ready"),
    ],
)
def test_a_sick_gpu_fails_and_is_named(change: dict[str, Any], code: str) -> None:
    result = evaluated(gpu=change)
    assert (result.verdict, result.code) == ("fail", code)
    assert "00000000:19:00.0" in result.cause


FILE = ModuleFile(Lookup.FOUND, "6.1.0-56-amd64", "nvidia", "/lib/modules/x/nvidia.ko", VERSION, "open")
MISSING = ModuleFile(Lookup.MISSING, "6.1.0-56-amd64", "nvidia-current-open", flavor="open", headers=False)


@pytest.mark.parametrize(
    ("loaded", "file", "declared", "code", "fragment"),
    [
        ("open", FILE, "open", "ok", ""),
        ("proprietary", FILE, None, "ok", ""),
        (None, dataclasses.replace(FILE, lookup=Lookup.UNKNOWN), "open", "ok", ""),
        ("proprietary", FILE, "open", "flavor_differs", "loaded kernel modules are the proprietary ones, open is declared"),
        ("open", dataclasses.replace(FILE, flavor="proprietary"), "open", "module_file", "modprobe nvidia would load proprietary"),
        ("open", dataclasses.replace(FILE, version="550.90.07"), "open", "module_file", "modprobe nvidia would load driver 550.90.07"),
        ("open", MISSING, "open", "module_file", "no module nvidia-current-open for kernel 6.1.0-56-amd64"),
    ],
)  # fmt: skip
def test_the_loaded_flavour_and_what_a_reboot_would_load(
    loaded: str | None, file: ModuleFile, declared: str | None, code: str, fragment: str
) -> None:
    modules = driver_gate.Modules(loaded, file)
    result = evaluated(modules=modules, expected=dataclasses.replace(EXPECTED, flavor=declared))
    assert result.code == code
    assert fragment in result.cause
    platform = dataclasses.replace(EXPECTED, flavor=declared, packaged=False)
    assert evaluated(modules=modules, expected=platform).code == "ok"


def test_what_is_wrong_comes_before_what_is_not_held() -> None:
    loose = {"libcuda1": {"version": VERSION, "hold": False, "broken": False}}
    result = evaluated({"packages": loose, "fabric_manager": None})
    assert result.code == "fabric_manager_missing"
    assert result.cause.endswith("libcuda1")


@pytest.mark.parametrize(
    ("state", "fragment"),
    [
        ({"xids": [event("Xid", 31)]}, "Xid 31"),
        ({"xids": [event("SXid", 12028, "Non-fatal, Link 32")]}, "SXid 12028"),
        ({"pending_reboot": True, "pending_reboot_packages": ["libc6"]}, "a reboot is pending for libc6"),
    ],
)
def test_what_only_warns(state: dict[str, Any], fragment: str) -> None:
    result = evaluated(state)
    assert result.verdict == "pass"
    assert any(fragment in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("on_bus", "answering", "cause"),
    [
        (
            ["0000:19:00.0", "0000:3b:00.0"],
            "00000000:19:00.0",
            ": 0000:3b:00.0 is on the PCI bus and does not answer. On a1: journalctl -k -g NVRM; reboot a1, then ",
        ),
        (["0000:19:00.0"], "00000000:19:00.0", ". On a1: lspci"),
        (["0000:19:00.0", "0000:3b:00.0"], None, ". On a1: lspci"),
        ([], "00000000:19:00.0", ". On a1: lspci"),
    ],
)
def test_a_gpu_that_does_not_answer_at_all_is_named(on_bus: list[str], answering: str | None, cause: str) -> None:
    """One whose RmInitAdapter fails (NVIDIA/gpu-operator#1146) is missing from nvidia-smi, and not from the bus."""
    result = evaluated({"gpus": [{**STATE["gpus"][0], "pci": answering}], "gpus_on_bus": on_bus})
    assert (result.verdict, result.code) == ("fail", "gpu_count")
    assert result.cause.startswith(f"1 GPUs answer, 2 are declared{cause}")


@pytest.mark.parametrize("state", ["P2", "P5", "P8"])
def test_a_gpu_lowers_its_link_while_it_idles(state: str) -> None:
    """NVIDIA/open-gpu-kernel-modules#731; every A10G, L4 and T4 does."""
    assert not any(
        "PCIe" in line for line in evaluated(gpu={"pcie_generation": 1, "performance_state": state}).warnings
    )


UNKNOWN = GpuHealth("0F:01:00.0")


@pytest.mark.parametrize(
    "health",
    [
        {"nvlink": ()},
        {"nvlink": tuple(dataclasses.replace(one, rates=()) for one in HEALTH.nvlink)},
        {"nvlink": tuple(dataclasses.replace(one, rates=(0.0,) * 12) for one in HEALTH.nvlink)},
        {"gpus": (UNKNOWN,)},
    ],
)
def test_what_a_gpu_does_not_have_is_no_fault(health: dict[str, Any]) -> None:
    assert evaluated(health=health).verdict == "pass"


@pytest.mark.parametrize(
    ("script", "verdict", "code"),
    [
        pytest.param("exec sleep 30", "timeout", "driver_hangs", id="hangs"),
        pytest.param("echo 'GSP: no answer within 5 s'; exit 9", "fail", "smi_fails", id="fails with such a message"),
    ],
)
def test_a_timeout_is_recognised_by_how_nvidia_smi_ended(script: str, verdict: str, code: str, tmp_path: Path) -> None:
    """Fed by a real nvidia-smi that hangs or fails, through the reading of the state and of the health."""

    def run(argv: Sequence[str], _deadline: float) -> CommandResult:
        return commands.run_command(["sh", "-c", script if argv[0] == "nvidia-smi" else "exit 1"], 0.3)

    state = driver_state.driver_state(root=tmp_path, run=run)
    for read in (state, {**STATE, "smi_failure": None}):
        result = driver_gate.evaluate(read, gpu_health.health(run=run), EXPECTED)  # type: ignore[arg-type]
        assert code in result.measured["findings"]
    assert driver_gate.evaluate({**STATE, "smi_failure": state["smi_failure"]}, Health(), EXPECTED).verdict == verdict


def test_all_causes_are_reported_and_the_first_gives_the_code() -> None:
    result = evaluated({"loaded_version": "550.54.15"}, {"ecc_uncorrected": 1})
    assert result.measured["findings"] == ["module_differs", "fabric_manager_differs", "ecc_errors"]
    assert "550.54.15" in result.cause
    assert "ECC" in result.cause


def test_a_driver_that_did_not_come_as_packages() -> None:
    bare = {"packages": {}, "package_versions": [], "package_version": None}
    assert evaluated(bare, expected=Expected(None, gpus=2, packaged=False)).verdict == "pass"
    assert evaluated(
        bare | {"userspace_version": "550.90.07"}, expected=Expected(None, gpus=2, packaged=False)
    ).code == ("module_differs")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"packages": {"libcuda1": {"version": f"{VERSION}-1", "hold": False, "broken": False}}}, "not_held"),
        ({"dpkg_interrupted": True}, "dpkg_interrupted"),
        ({"package_versions": [], "package_version": None}, "package_missing"),
    ],
)
def test_packages_matter_only_where_lockstep_installs_them(change: dict[str, Any], code: str) -> None:
    assert evaluated(change).code == code
    assert evaluated(change, expected=dataclasses.replace(EXPECTED, packaged=False)).verdict == "pass"


@pytest.mark.parametrize(("setting", "code"), [("auto", "ok"), ("present", "fabric_manager_missing"), ("absent", "ok")])
def test_a_host_without_nvswitches_needs_no_fabric_manager(setting: str, code: str) -> None:
    expected = Expected(VERSION, gpus=2, fabric_manager=setting)
    assert evaluated({"fabric_manager": None, "nvswitches": 0}, expected=expected).code == code


def test_a_suspect_issue_warns() -> None:
    result = evaluated(issues=[SUSPECT])
    assert result.verdict == "pass"
    assert "hangs (low confidence)" in result.warnings[0]


def test_a_bad_issue_fails_unless_it_is_allowed_by_name() -> None:
    assert evaluated(issues=[BAD]).code == "known_bad"
    allowed = evaluated(issues=[BAD], expected=Expected(VERSION, gpus=2, allowed=("breaks",)))
    assert allowed.verdict == "pass"
    assert "breaks" in allowed.warnings[0]
