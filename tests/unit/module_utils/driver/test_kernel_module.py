"""When modules are reloaded, when only a reboot helps, and when neither may be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import fabric, holders, kernel_log, kernel_module
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import state as driver_state
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.kernel_module import (
    SERVICES,
    Loaded,
    LoadFailed,
    decide,
)

OLD, NEW = "550.90.07", "550.127.05"


def holder(unit: str | None = None, pid: int = 4711) -> holders.Holder:
    return {"pid": pid, "command": "python train.py", "unit": unit, "devices": ["/dev/nvidia0"]}


def loaded(version: str | None = OLD, *held_by: holders.Holder, used_by: Sequence[str] = ("nvidia_uvm",)) -> Loaded:
    modules: dict[str, driver_state.KernelModule] = {"nvidia": {"refcount": 3, "used_by": list(used_by)}}
    return Loaded(version, modules if version else {}, held_by)


IDLE = loaded()
SERVED = loaded(OLD, holder("nvidia-persistenced.service"), holder("dcgm-exporter.service"))
BUSY = loaded(OLD, holder("lockstep-ray.service"))
STRANGE = loaded(OLD, used_by=("nvidia_uvm", "lttng_probe"))


@pytest.mark.parametrize(
    ("now", "policy", "action"),
    [
        (loaded(NEW), "either", "none"),
        (loaded(NEW), "neither", "none"),
        (loaded(NEW, holder()), "reload", "none"),
        (IDLE, "either", "reload"),
        (IDLE, "reload", "reload"),
        (IDLE, "reboot", "reboot"),
        (IDLE, "neither", "refused"),
        (SERVED, "either", "reload"),
        (BUSY, "either", "reboot"),
        (BUSY, "reload", "refused"),
        (BUSY, "reboot", "reboot"),
        (STRANGE, "either", "reboot"),
        (loaded(None), "either", "reload"),
        (loaded(None), "reboot", "reload"),
        (loaded(None), "neither", "refused"),
    ],
)
def test_decisions(now: Loaded, policy: Any, action: str) -> None:
    assert decide(now, NEW, policy, SERVICES).action == action


def test_every_holder_is_named() -> None:
    reasons = decide(loaded(OLD, holder(None, 7), holder("lockstep-ray.service", 8)), NEW, "reload", SERVICES).reasons
    assert reasons[1] == "pid 7 (python train.py) holds /dev/nvidia0"
    assert reasons[2] == "pid 8 (python train.py, lockstep-ray.service) holds /dev/nvidia0"
    assert "lttng_probe" in decide(STRANGE, NEW, "either", SERVICES).reasons[1]


def test_an_operator_s_own_unit_may_be_stopped() -> None:
    assert decide(loaded(OLD, holder("my.service")), NEW, "reload", [*SERVICES, "my.service"]).action == "reload"


class Kernel:
    """A kernel and its services: modprobe and systemctl change what ``nvidia`` sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, installed: str = NEW) -> None:
        self.loaded: dict[str, str] = {"nvidia_uvm": OLD, "nvidia_modeset": OLD, "nvidia": OLD}
        self.installed = installed
        self.active = {"nvidia-persistenced.service", "dcgm-exporter.service"}
        self.held_by: set[str] = set(self.active)
        self.sticky: set[str] = set()
        self.hangs: set[str] = set()
        self.calls: list[str] = []
        self.next, self.licence = NEW, "Dual MIT/GPL"
        self.flavor: str | None = "open"
        monkeypatch.setattr(driver_state, "loaded_flavor", lambda: self.flavor if self.loaded.get("nvidia") else None)
        monkeypatch.setattr(driver_state, "loaded_version", lambda: self.loaded.get("nvidia"))
        monkeypatch.setattr(
            driver_state, "modules", lambda: {name: {"refcount": 0, "used_by": []} for name in self.loaded}
        )
        monkeypatch.setattr(holders, "holders", lambda: [holder(unit) for unit in sorted(self.held_by)])

    def run(self, argv: Sequence[str], _deadline: float) -> CommandResult:
        command = " ".join(argv)
        if "-D" in argv or argv[0] == "modinfo":
            return self.resolved(command)
        if not command.startswith(("systemctl is-active", "systemctl cat")):
            self.calls.append(command)
        if argv[0] == "systemctl":
            return self.systemctl(argv[1], argv[2:])
        name = argv[-1]
        if name in self.hangs:
            return CommandResult(None, timed_out=True)
        if argv[1] == "-r":
            if name in self.sticky:
                return CommandResult(1, stderr=f"modprobe: FATAL: Module {name} is in use.")
            del self.loaded[name]
        else:
            self.loaded[name] = self.installed
        return CommandResult(0)

    def resolved(self, command: str) -> CommandResult:
        """What modprobe would load."""
        if not self.next:
            return CommandResult(1, stderr="modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.1")
        if command.startswith("modprobe"):
            return CommandResult(0, "insmod /lib/modules/6.1/updates/dkms/nvidia.ko \n")
        return CommandResult(0, self.next if "-F version" in command else self.licence)

    def systemctl(self, verb: str, units: Sequence[str]) -> CommandResult:
        if verb == "is-active":
            return CommandResult(0 if units[-1] in self.active else 3)
        if verb == "cat":
            return CommandResult(0 if units[0] in ("nvidia-persistenced.service", "dcgm-exporter.service") else 1)
        if verb == "stop":
            self.active -= set(units)
            self.held_by -= set(units)
        else:
            self.active |= set(units)
        return CommandResult(0)

    def load(self, policy: Any = "either", flavor: str | None = "open") -> kernel_module.Decision:
        return kernel_module.load(NEW, policy, flavor=flavor, run=self.run, sleep=lambda _seconds: None)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_a_reload_stops_unloads_in_order_loads_and_starts_again(kernel: Kernel) -> None:
    assert kernel.load().action == "reload"
    assert kernel.calls == [
        "systemctl stop dcgm-exporter.service nvidia-persistenced.service",
        "modprobe -r nvidia_modeset",
        "modprobe -r nvidia_uvm",
        "modprobe -r nvidia",
        "modprobe nvidia",
        "modprobe nvidia_uvm",
        "systemctl start dcgm-exporter.service",
        "systemctl start nvidia-persistenced.service",
    ]
    assert kernel.loaded["nvidia"] == NEW
    assert kernel.active == {"nvidia-persistenced.service", "dcgm-exporter.service"}


@pytest.mark.parametrize(
    ("version", "licence", "policy", "said"),
    [
        (NEW, "NVIDIA", "either", "would load proprietary kernel modules (/lib/modules/6.1/updates/dkms/nvidia.ko), open ones are"),
        (OLD, "Dual MIT/GPL", "either", f"would load driver {OLD}"),
        ("", "", "either", "there is no module nvidia for kernel"),
        (NEW, "NVIDIA", "reboot", "would load proprietary kernel modules"),
        ("", "", "reboot", "there is no module nvidia for kernel"),
    ],
)  # fmt: skip
def test_what_modprobe_would_load_is_made_sure_of_before_anything_is_stopped(
    kernel: Kernel, version: str, licence: str, policy: str, said: str
) -> None:
    kernel.next, kernel.licence = version, licence
    with pytest.raises(LoadFailed, match=re.escape(said)) as failure:
        kernel.load(policy)
    assert "Nothing was unloaded" in str(failure.value)
    assert failure.value.stop.next
    assert kernel.calls == []
    assert kernel.loaded["nvidia"] == OLD


@pytest.mark.parametrize(("declared", "action"), [("open", "none"), ("proprietary", "reload"), (None, "none")])
def test_the_other_flavour_of_the_same_version_is_loaded_instead(
    kernel: Kernel, declared: str | None, action: str
) -> None:
    kernel.loaded["nvidia"] = NEW
    kernel.licence = "NVIDIA"
    assert kernel.load(flavor=declared).action == action
    assert ("modprobe -r nvidia" in kernel.calls) is (action == "reload")


def test_nothing_is_touched_when_it_runs_already(kernel: Kernel) -> None:
    kernel.loaded["nvidia"] = NEW
    assert kernel.load().action == "none"
    assert kernel.calls == []


def test_a_stopped_persistence_daemon_is_started_though_nothing_is_loaded(kernel: Kernel) -> None:
    kernel.loaded["nvidia"] = NEW
    kernel.active.clear()
    kernel.load()
    assert kernel.calls == ["systemctl start nvidia-persistenced.service"]


def test_what_reaches_the_nvswitches_is_loaded_before_fabric_manager_starts(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fabric, "switch_managers", lambda: ["0000:a0:00.0"])
    kernel.loaded["nvidia"] = NEW
    kernel.active.clear()
    kernel.load()
    assert kernel.calls == ["modprobe ib_umad", "systemctl start nvidia-persistenced.service"]


def test_a_unit_that_lockstep_does_not_manage_is_never_stopped(kernel: Kernel) -> None:
    kernel.held_by.add("lockstep-ray.service")
    decision = kernel.load()
    assert decision.action == "reboot"
    assert kernel.calls == []


@pytest.mark.parametrize(("policy", "action"), [("either", "reboot"), ("reload", "refused")])
def test_a_module_that_stays_is_named_and_services_run_again(kernel: Kernel, policy: str, action: str) -> None:
    kernel.sticky.add("nvidia_uvm")
    decision = kernel.load(policy)
    assert decision.action == action
    assert "nvidia_uvm cannot be unloaded (reference count 0)" in decision.reasons[-1]
    assert "nvidia-persistenced.service" in kernel.active


def test_an_unload_that_hangs_asks_for_a_reboot(kernel: Kernel) -> None:
    kernel.hangs.add("nvidia")
    assert "modprobe -r nvidia gave no answer" in kernel.load().reasons[-1]


def test_the_wrong_module_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, installed="550.54.15")
    with pytest.raises(LoadFailed, match=r"loaded driver 550\.54\.15, 550\.127\.05 is installed"):
        kernel.load()
    assert "nvidia-persistenced.service" in kernel.active


def test_what_the_kernel_says_of_the_card_is_quoted(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open modules on Volta: modprobe alone says "No such device"."""
    case = Path(__file__).parents[2] / "fixtures/cases/open-module-on-volta"
    said = kernel_log.parse_refusal((case / "kmsg.txt").read_text().splitlines())
    assert said == (
        "The NVIDIA GPU 0000:af:00.0 (PCI ID: 10de:1db5) installed in this system is not supported by open nvidia.ko "
        "because it does not include the required GPU System Processor (GSP)."
    )
    assert kernel_log.parse_refusal(["NVRM: loading NVIDIA UNIX x86_64 Kernel Module"]) is None
    left_behind = [  # driver 610.43.02 on a card of Pascal, from a public report
        "NVRM: The NVIDIA GeForce GT 1030 GPU installed in this system is",
        "NVRM:   supported through the NVIDIA 580.xx Legacy drivers. Please",
        "NVRM:   visit http://www.nvidia.com/object/unix.html for more",
        "NVRM:   information.  The 610.43.02 NVIDIA driver will ignore this GPU.",
    ]
    assert kernel_log.parse_refusal([*left_behind, "NVRM: No NVIDIA GPU found."]) == (
        "The NVIDIA GeForce GT 1030 GPU installed in this system is supported through the NVIDIA 580.xx Legacy drivers. Please "
        "visit http://www.nvidia.com/object/unix.html for more information. The 610.43.02 NVIDIA driver will ignore this GPU."
    )
    monkeypatch.setattr(kernel_log, "refusal", lambda _since: said)

    def run(argv: Sequence[str], deadline: float) -> CommandResult:
        if list(argv) == ["modprobe", "nvidia"]:
            return CommandResult(1, stderr=(case / "modprobe.txt").read_text())
        return kernel.run(argv, deadline)

    with pytest.raises(LoadFailed, match=r"No such device; the kernel says: The NVIDIA GPU 0000:af:00\.0"):
        kernel_module.load(NEW, "either", run=run, sleep=lambda _seconds: None)


def test_a_refused_key_is_explained(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: Sequence[str], deadline: float) -> CommandResult:
        if list(argv) == ["modprobe", "nvidia"]:
            return CommandResult(1, stderr="modprobe: ERROR: could not insert 'nvidia': Key was rejected by service")
        return kernel.run(argv, deadline)

    with pytest.raises(LoadFailed, match="Secure Boot"):
        kernel_module.load(NEW, "either", run=run, sleep=lambda _seconds: None)
