"""What is read of a driver, on texts of several versions and on a host made of files."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import health as gpu_health
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import state as driver_state
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.state import Answer

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


@pytest.mark.parametrize(
    ("package", "driver"),
    [
        ("550.127.05-0ubuntu1", "550.127.05"),
        ("1:535.261.03-1~deb12u1", "535.261.03"),
        ("595.84-0ubuntu0.26.04.1", "595.84"),
        ("590.48.01-1ubuntu1", "590.48.01"),
    ],
)
def test_upstream(package: str, driver: str) -> None:
    assert driver_state.upstream(package) == driver
    assert driver_state.is_driver_version(driver)


@pytest.mark.parametrize(
    "other", ["550", "1.16.2", "20220217+3~deb12u1", "550.127.05-0ubuntu1", "12.4.1", "5500.12.05"]
)
def test_not_a_driver_version(other: str) -> None:
    assert not driver_state.is_driver_version(other)


def test_packages() -> None:
    packages = driver_state.parse_dpkg(text("dpkg/ubuntu2204-550"))
    assert set(packages) == {
        "libnvidia-compute-550",
        "nvidia-utils-550",
        "nvidia-fabricmanager-550",
        "nvidia-settings",
        "nvidia-dkms-550-open",
        "libnvidia-cfg1-550",
    }
    assert packages["libnvidia-compute-550"] == {"version": "550.127.05-0ubuntu1", "hold": True, "broken": False}
    assert packages["nvidia-utils-550"]["hold"] is False
    assert packages["nvidia-dkms-550-open"]["broken"] is True
    assert driver_state.driver_versions(packages) == ["550.127.05"]


def test_dpkg_s_table_says_what_dpkg_query_says() -> None:
    listed = driver_state.parse_dpkg(driver_state.status_lines(text("dpkg/status-ubuntu2204-550")))
    assert listed == driver_state.parse_dpkg(text("dpkg/ubuntu2204-550"))


def test_a_paragraph_that_dpkg_would_not_write_is_no_package() -> None:
    assert driver_state.parse_dpkg(driver_state.status_lines("Package: nvidia-utils-550\nVersion: 1\n")) == {}


@pytest.mark.parametrize(
    ("files", "asked"),
    [
        pytest.param(
            {"status": "Package: nvidia-utils-550\nStatus: install ok installed\nVersion: 1\n"}, 0, id="the table alone"
        ),
        pytest.param({"status": "Package: vim\n", "updates/0001": ""}, 1, id="news beside the table"),
        pytest.param({}, 1, id="no table"),
    ],
)
def test_dpkg_query_is_asked_only_where_the_table_cannot_tell(
    tmp_path: Path, files: dict[str, str], asked: int
) -> None:
    for name, content in files.items():
        path = tmp_path / "var/lib/dpkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    calls: list[str] = []

    def run(argv: Sequence[str], _deadline: float) -> Answer:
        calls.append(argv[0])
        return Answer(0, "install\tinstalled\tnvidia-utils-550\t1\n")

    assert driver_state.installed(tmp_path, run) == {
        "nvidia-utils-550": {"version": "1", "hold": False, "broken": False}
    }
    assert calls == ["dpkg-query"] * asked


def test_what_is_begun_meanwhile_gives_its_result_or_raises_its_error() -> None:
    assert driver_state.meanwhile(lambda: 7)() == 7
    with pytest.raises(ZeroDivisionError):
        driver_state.meanwhile(lambda: 1 // 0)()


def test_mixed_packages_are_all_named_oldest_first() -> None:
    packages = {
        "libnvidia-compute": {"version": "580.95.05-1"},
        "nvidia-dkms-550": {"version": "550.90.07-1"},
        "libcuda1": {"version": "550.127.05-1"},
        "nvidia-persistenced": {"version": "535.171.04-1"},
        "nvidia-fabricmanager": {"version": "560.35.05-1"},
    }
    assert driver_state.driver_versions(packages) == ["550.90.07", "550.127.05", "580.95.05"]


def test_gpus() -> None:
    gpus = driver_state.parse_gpus(text("nvidia-smi/550.127.05/query-gpu.csv"))
    assert [gpu["index"] for gpu in gpus] == [0, 1]
    assert gpus[0] == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-5a10e6e5-95f7-2785-ed63-6f6147f304f7",
        "memory_mib": 81559,
        "pci": "00000000:19:00.0",
        "persistence": True,
    }


def test_gpu_that_does_not_tell_its_memory() -> None:
    (gpu,) = driver_state.parse_gpus(text("nvidia-smi/580.95.05/query-gpu-gh200.csv"))
    assert (gpu["memory_mib"], gpu["persistence"]) == (None, False)


@pytest.mark.parametrize("garbage", ["", "No devices were found", 'Field "x" is not a valid field to query.\n'])
def test_gpus_of_a_text_without_any(garbage: str) -> None:
    assert driver_state.parse_gpus(garbage) == []


def test_fabric_manager_version() -> None:
    assert driver_state.parse_fabric_manager(text("nv-fabricmanager/550.127.05")) == "550.127.05"


def test_kernel_messages_and_xids() -> None:
    messages, lost = driver_state.parse_kmsg(text("kernel/kmsg"), boot=1_000_000.0)
    assert not lost
    assert messages[2] == (1_000_061.0, messages[2][1])
    events = {(event["kind"], event["code"]): event for event in driver_state.parse_xids(messages)}
    assert set(events) == {("Xid", 79), ("Xid", 31), ("SXid", 12028)}
    assert events["Xid", 31]["count"] == 2
    assert events["Xid", 31]["last"] == "1970-01-12T13:47:53Z"
    assert events["Xid", 79]["devices"] == ["0000:3b:00"]
    assert "Non-fatal" in events["SXid", 12028]["message"]


def test_a_wrapped_kernel_buffer_is_noticed() -> None:
    _messages, lost = driver_state.parse_kmsg("6,4711,123,-;first that is left", boot=0.0)
    assert lost


def test_xids_from_the_journal() -> None:
    events = driver_state.parse_xids(driver_state.parse_journal(text("kernel/journal-short-unix")))
    assert [(event["kind"], event["code"], event["count"]) for event in events] == [("SXid", 20009, 1), ("Xid", 79, 1)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(0, "index"), None),
        (Answer(18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n"),
         "Failed to initialize NVML: Driver/library version mismatch"),
        (Answer(None, timed_out=True, seconds=5.0), "nvidia-smi gave no answer within 5 s: the driver or a GPU hangs"),
        (Answer(15, "", ""), "nvidia-smi ended with 15"),
    ],
)  # fmt: skip
def test_smi_failure(answer: Answer, words: str | None) -> None:
    assert driver_state.smi_failure(answer) == words


def test_health_on_550() -> None:
    good, sick = gpu_health.parse_smi_xml(text("nvidia-smi/550.127.05/q-x.xml"))
    assert good["slowdowns"] == []
    assert (good["ecc"], good["ecc_uncorrected"], good["remap_pending"], good["remap_failure"]) == (
        True,
        0,
        False,
        False,
    )
    assert (good["pcie_generation"], good["pcie_generation_max"]) == (5, 5)
    assert (good["pcie_width"], good["pcie_width_max"]) == (16, 16)
    assert (good["fabric_state"], good["fabric_status"]) == ("Completed", "Success")
    assert good["processes"] == [{"pid": 4711, "name": "ray::RayWorkerWrapper", "memory_mib": 71680}]
    assert sick["ecc_uncorrected"] == 4
    assert sick["slowdowns"] == ["hw_slowdown", "hw_thermal_slowdown"]


def test_health_on_535_which_named_slowdowns_otherwise() -> None:
    (gpu,) = gpu_health.parse_smi_xml(text("nvidia-smi/535.183.01/q-x.xml"))
    assert gpu["slowdowns"] == ["hw_slowdown", "hw_thermal_slowdown"]
    assert gpu["ecc_uncorrected"] == 0


def test_health_of_a_gpu_that_tells_little() -> None:
    (gpu,) = gpu_health.parse_smi_xml(text("nvidia-smi/580.95.05/q-x-gb10.xml"))
    unknown = ("ecc", "ecc_uncorrected", "remap_pending", "pcie_width", "fabric_state")
    assert [gpu[key] for key in unknown] == [None] * len(unknown)


def test_health_refuses_what_is_no_xml() -> None:
    with pytest.raises(ValueError, match="gave no XML"):
        gpu_health.parse_smi_xml("Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error")


def test_nvlinks() -> None:
    links = gpu_health.parse_nvlink(text("nvidia-smi/550.127.05/nvlink-s.txt"))
    first, second = links.values()
    assert first == [True] * 18
    assert [number for number, up in enumerate(second) if not up] == [4]


def test_a_command_that_hangs_is_ended() -> None:
    start = time.monotonic()
    answer = driver_state.run_command(["sh", "-c", "sleep 30 & sleep 30"], 0.2)
    assert answer.timed_out
    assert answer.returncode is None
    assert time.monotonic() - start < 20


def test_a_command_that_is_not_there() -> None:
    answer = driver_state.run_command(["no-such-command-of-nvidia"], 1.0)
    assert answer.returncode is None
    assert not answer.timed_out


class Host:
    """A host made of files below ``root`` and of commands that answer from a table."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.answers: dict[str, Answer] = {
            "nvidia-smi": Answer(0, text("nvidia-smi/550.127.05/query-gpu.csv")),
            "dpkg-query": Answer(0, text("dpkg/ubuntu2204-550")),
            "nv-fabricmanager": Answer(0, text("nv-fabricmanager/550.127.05")),
            "systemctl": Answer(0, "active\n"),
            "journalctl": Answer(0, text("kernel/journal-short-unix")),
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

    def state(self) -> dict[str, Any]:
        return driver_state.driver_state(root=self.root, run=lambda argv, _deadline: self.answers[argv[0]])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


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
    assert state["smi_error"] is None


@pytest.mark.parametrize("also", [(), ("xids",), ("holders",), driver_state.COSTLY])
def test_what_costs_much_is_looked_at_only_where_asked_for(
    host: Host, also: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(driver_state, "holders", lambda _root: looked.append("holders"))
    monkeypatch.setattr(driver_state, "_xids", lambda _root, _run, _deadline: looked.append("xids"))
    state = driver_state.driver_state(root=host.root, run=lambda argv, _deadline: host.answers[argv[0]], also=also)
    assert sorted(looked) == sorted(also)
    assert {"holders", "xids"} & set(state) == set(also)
    assert len(state["gpus"]) == 2


def test_state_of_a_host_whose_driver_hangs(host: Host) -> None:
    host.answers["nvidia-smi"] = Answer(None, timed_out=True, seconds=5.0)
    state = host.state()
    assert state["gpus"] == []
    assert "no answer within 5 s" in state["smi_error"]
    assert state["loaded_version"] == "550.90.07"


def test_state_of_a_host_without_any_driver(tmp_path: Path) -> None:
    missing = Answer(None, stderr="No such file or directory")
    state = driver_state.driver_state(root=tmp_path, run=lambda _argv, _deadline: missing)
    assert state["packages"] == {}
    assert (state["package_version"], state["userspace_version"], state["loaded_version"]) == (None, None, None)
    assert (state["fabric_manager"], state["persistence"], state["smi_error"]) == (None, None, None)


def test_pending_reboot_names_its_packages(host: Host) -> None:
    host.file("run/reboot-required", "*** System restart required ***")
    host.file("run/reboot-required.pkgs", "linux-image-6.1.0-20-amd64\nlinux-image-6.1.0-20-amd64\nlibc6\n")
    state = host.state()
    assert state["pending_reboot"] is True
    assert state["pending_reboot_packages"] == ["libc6", "linux-image-6.1.0-20-amd64"]


def test_an_interrupted_dpkg_is_noticed(tmp_path: Path) -> None:
    updates = tmp_path / "var/lib/dpkg/updates"
    updates.mkdir(parents=True)
    assert driver_state.dpkg_interrupted(tmp_path) is False
    (updates / "0001").write_text("")
    assert driver_state.dpkg_interrupted(tmp_path) is True


def test_nvswitches_are_counted_by_vendor_and_class(tmp_path: Path) -> None:
    for name, vendor, kind in [("a", "0x10de", "0x068000"), ("b", "0x10de", "0x030200"), ("c", "0x8086", "0x068000")]:
        folder = tmp_path / "sys/bus/pci/devices" / name
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    assert driver_state.nvswitches(tmp_path) == 1


def test_another_reader_s_pipe_is_left_alone(tmp_path: Path) -> None:
    """A /dev/kmsg that is not the kernel's device must not be read: somebody else waits for what is in it."""
    (tmp_path / "dev").mkdir()
    os.mkfifo(tmp_path / "dev/kmsg")
    state = driver_state.driver_state(
        root=tmp_path, run=lambda _argv, _deadline: Answer(0, text("kernel/journal-short-unix"))
    )
    assert [event["code"] for event in state["xids"]] == [20009, 79]
