"""The state of a driver, on a host made of files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import holders, kernel_log
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import state as driver_state
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.versions import find_driver_version

FIXTURES = Path(__file__).parents[2] / "fixtures"


def text(name: str) -> str:
    return (FIXTURES / name).read_text()


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("version-550.90.07-proprietary", "550.90.07"),
        ("version-555.58.02-open", "555.58.02"),
        ("version-560.35.03-vgpu", "560.35.03"),
        ("version-610.43.02-open", "610.43.02"),
    ],
)
def test_loaded_version(name: str, version: str) -> None:
    assert driver_state.parse_proc_version(text(f"proc/{name}")) == version


@pytest.mark.parametrize("nothing", ["", "GCC version:  gcc version 12.3.0", "NVRM version: unknown"])
def test_loaded_version_of_a_text_without_one(nothing: str) -> None:
    assert driver_state.parse_proc_version(nothing) is None


@pytest.mark.parametrize(
    ("names", "version"),
    [
        (["libnvidia-ml.so", "libnvidia-ml.so.1", "libnvidia-ml.so.550.127.05"], "550.127.05"),
        (["libnvidia-ml.so.550.90.07", "libnvidia-ml.so.550.127.05"], "550.127.05"),
        (["libnvidia-ml.so.595.84"], "595.84"),
        (["libnvidia-ml.so.1", "libcuda.so.550.127.05"], None),
    ],
)
def test_library_version(names: list[str], version: str | None) -> None:
    assert driver_state.parse_library_version(names) == version


def test_fabric_manager_version() -> None:
    assert find_driver_version(text("nv-fabricmanager/550.127.05")) == "550.127.05"


class Host:
    """A host made of files below ``root`` and of commands that answer from a table."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.answers: dict[str, CommandResult] = {
            "nvidia-smi": CommandResult(0, text("nvidia-smi/550.127.05/query-gpu.csv")),
            "dpkg-query": CommandResult(0, text("dpkg/ubuntu2204-550")),
            "nv-fabricmanager": CommandResult(0, text("nv-fabricmanager/550.127.05")),
            "systemctl": CommandResult(0, "active\n"),
            "journalctl": CommandResult(0, text("kernel/journal-short-unix")),
        }
        self.file("proc/driver/nvidia/version", text("proc/version-550.90.07-proprietary"))
        self.file("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.127.05", "")
        self.file("sys/module/nvidia/refcnt", "3\n")
        self.file("sys/module/nvidia/holders/nvidia_uvm", "")
        self.file("proc/4711/cmdline", "/usr/bin/dcgm-exporter\0-f\0")
        self.file("proc/4711/cgroup", "0::/system.slice/dcgm-exporter.service\n")
        self.file("proc/4711/maps", "7f00-7f01 rw-s 00000000 00:05 1 /dev/nvidiactl\n")
        (root / "proc/4711/fd").mkdir()
        os.symlink("/dev/nvidia0", root / "proc/4711/fd/7")

    def file(self, name: str, content: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def state(self) -> driver_state.FullDriverState:
        return driver_state.driver_state(root=self.root, run=lambda argv, _deadline: self.answers[argv[0]])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def stat_of_parent(name: str, parent: int) -> str:
    """This process's own ``stat`` as that of process 4711, with another name and parent."""
    state, _parent, *others = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return f"4711 ({name}) {state} {parent} {' '.join(others)}\n"


def test_what_this_process_started_itself_is_no_holder(host: Host) -> None:
    """As the nvidia-smi of the probe, which runs while holders are looked for."""
    host.file("proc/4711/stat", stat_of_parent("nvidia-smi) x", os.getpid()))
    assert host.state()["holders"] == []
    host.file("proc/4711/stat", stat_of_parent("nvidia-smi", 1))
    assert [holder["pid"] for holder in host.state()["holders"]] == [4711]


def test_user_space_of_a_driver_whose_libraries_lie_elsewhere(host: Host) -> None:
    (host.root / "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.127.05").unlink()
    assert host.state()["userspace_version"] == "550.127.05"
    host.answers["nvidia-smi"] = CommandResult(18, text("nvidia-smi/580.95.05/mismatch.txt"))
    assert host.state()["userspace_version"] is None


def test_a_corrupt_inforom_is_a_warning_of_the_state(host: Host) -> None:
    host.answers["nvidia-smi"] = CommandResult(14, text("cases/smi-inforom-exit-14/query-gpu.csv"))
    state = host.state()
    assert (len(state["gpus"]), state["smi_failure"]) == (1, None)
    assert [(warning["code"], warning["gpu"]) for warning in state["smi_warnings"]] == [
        ("inforom_corrupt", "0000:00:1E.0")
    ]


def test_state_of_a_half_upgraded_host(host: Host) -> None:
    state = host.state()
    assert state["package_version"] == "550.127.05"
    assert state["userspace_version"] == "550.127.05"
    assert state["loaded_version"] == "550.90.07"
    assert state["fabric_manager"] == {
        "package": "nvidia-fabricmanager-550",
        "package_version": "550.127.05",
        "version": "550.127.05",
        "active": True,
    }
    assert state["persistence"] is True
    assert state["modules"] == {"nvidia": {"refcount": 3, "used_by": ["nvidia_uvm"]}}
    assert state["refcount"] == 3
    assert state["holders"] == [
        {
            "pid": 4711,
            "command": "/usr/bin/dcgm-exporter -f",
            "unit": "dcgm-exporter.service",
            "devices": ["/dev/nvidia0", "/dev/nvidiactl"],
        }
    ]
    assert [event["code"] for event in state["xids"]] == [20009, 79]
    assert state["dpkg_interrupted"] is True  # a package is half-configured
    assert state["smi_failure"] is None


@pytest.mark.parametrize("also", [(), ("xids",), ("holders",), driver_state.COSTLY])
def test_costly_parts_are_read_only_where_asked_for(
    host: Host, also: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(holders, "holders", lambda _root: read.append("holders"))
    monkeypatch.setattr(kernel_log, "xids", lambda _root, _run, _deadline: read.append("xids"))
    state = driver_state.driver_state(root=host.root, run=lambda argv, _deadline: host.answers[argv[0]], also=also)
    assert sorted(read) == sorted(also)
    assert {"holders", "xids"} & set(state) == set(also)
    assert len(state["gpus"]) == 2


def test_state_of_a_host_whose_driver_hangs(host: Host) -> None:
    host.answers["nvidia-smi"] = CommandResult(None, timed_out=True, seconds=5.0)
    state = host.state()
    assert state["gpus"] == []
    assert state["smi_failure"] is not None
    assert state["smi_failure"]["code"] == "timed_out"
    assert state["loaded_version"] == "550.90.07"


def test_state_of_a_host_without_any_driver(tmp_path: Path) -> None:
    missing = CommandResult(None, stderr="No such file or directory")
    state = driver_state.driver_state(root=tmp_path, run=lambda _argv, _deadline: missing)
    assert state["packages"] == {}
    assert (state["package_version"], state["userspace_version"], state["loaded_version"]) == (None, None, None)
    assert (state["fabric_manager"], state["persistence"], state["smi_failure"]) == (None, None, None)


def test_pending_reboot_names_its_packages(host: Host) -> None:
    host.file("run/reboot-required", "*** System restart required ***")
    host.file("run/reboot-required.pkgs", "linux-image-6.1.0-20-amd64\nlinux-image-6.1.0-20-amd64\nlibc6\n")
    state = host.state()
    assert state["pending_reboot"] is True
    assert state["pending_reboot_packages"] == ["libc6", "linux-image-6.1.0-20-amd64"]


def test_nvswitches_are_counted_by_vendor_and_class(tmp_path: Path) -> None:
    for name, vendor, kind in [("a", "0x10de", "0x068000"), ("b", "0x10de", "0x030200"), ("c", "0x8086", "0x068000")]:
        folder = tmp_path / "sys/bus/pci/devices" / name
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    assert driver_state.nvswitches(tmp_path) == 1


@pytest.mark.parametrize(
    ("name", "flavor"),
    [
        ("version-550.90.07-proprietary", "proprietary"),
        ("version-555.58.02-open", "open"),
        ("version-560.35.03-vgpu", "open"),
        ("version-610.43.02-open", "open"),
    ],
)
def test_flavour_of_the_loaded_module(name: str, flavor: str) -> None:
    assert driver_state.parse_proc_flavor(text(f"proc/{name}")) == flavor
    assert driver_state.parse_proc_flavor("") is None
