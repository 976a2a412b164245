"""What Ubuntu 22.04, 24.04 and 26.04 say where Debian says something else, from public captures; no Ubuntu was booted.

Sources and what each line stands for: tests/unit/fixtures/ubuntu/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import (
    apt_output,
    boot_kernels,
    dpkg,
    module_file,
    package_causes,
    package_state,
    transaction,
)
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import packages as driver_packages
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import repository as apt_repository
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.packages import package_set
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.transaction import Declared
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.versions import upstream

UBUNTU = Path(__file__).parents[2] / "fixtures/ubuntu"


def text(name: str) -> str:
    return (UBUNTU / name).read_text()


def names(version: str, flavor: Any, *kernels: str) -> set[str]:
    found = package_set(
        version, source="ubuntu", flavor=flavor, distribution="Ubuntu", fabric_manager=False, prebuilt_for=kernels
    )
    return {name for one in found for name in one.names}


@pytest.mark.parametrize(
    ("release", "branches"), [("22.04", ("470", "535")), ("24.04", ("580", "595"))]
)  # fmt: skip
def test_prebuilt_modules_are_named_as_ubuntu_drivers_names_them(release: str, branches: Sequence[str]) -> None:
    """``linux-modules-nvidia-580-server-open-generic``: the branch stays in the name from 590 on, unlike in NVIDIA's repository."""
    listed = dict(re.findall(r"^(nvidia-driver-\S+), \(kernel modules provided by (\S+)\)$",
                             text(f"{release}/ubuntu-drivers-list-gpgpu.txt"), re.MULTILINE))  # fmt: skip
    for branch in branches:
        for flavor, tail in (("open", "-open"), ("proprietary", "")):
            driver = f"nvidia-driver-{branch}-server{tail}"
            if driver not in listed:
                continue
            stem = re.sub(r"generic(-hwe-[\d.]+)?$", "", listed[driver])
            assert f"{stem}6.8.0-51-generic" in names(f"{branch}.10.01", flavor, "6.8.0-51-generic")
            assert f"{stem}6.17.0-1018-gcp" in names(f"{branch}.10.01", flavor, "6.17.0-1018-gcp")  # a cloud's kernel


def test_what_apt_offers_with_two_archives_of_one_priority() -> None:
    offered = apt_repository.parse_policy(text("24.04/apt-cache-policy.txt"))
    assert offered["nvidia-dkms-595-open"] == ["595.71.05-0ubuntu0.24.04.1"]
    assert offered["linux-modules-nvidia-595-open-6.8.0-134-generic"] == ["6.8.0-134.134"]
    assert "nvidia-firmware-595-server-595.71.05" in names("595.71.05", "open")


def test_what_apt_simulates() -> None:
    answer = apt_output.parse(True, text("24.04/apt-simulate.txt"))
    assert [(one.name, one.new) for one in answer.installs] == [
        ("gcc-13-base", "13.3.0-6ubuntu2~24.04.1"),
        ("libisl23", "0.26-3build1.1"),
        ("cpp-x86-64-linux-gnu", "4:13.2.0-7ubuntu1"),
    ]


@pytest.mark.parametrize(
    ("package", "driver"),
    [
        ("525.78.01-0ubuntu0.22.04.1", "525.78.01"),
        ("550.127.08-0ubuntu0.24.04.1", "550.127.08"),
        ("595.71.05-0ubuntu0.26.04.1", "595.71.05"),
        ("580.173.02-0ubuntu0.26.04.1", "580.173.02"),
    ],
)
def test_the_driver_s_version_in_a_package_version(package: str, driver: str) -> None:
    assert upstream(package) == driver


@pytest.mark.parametrize(
    ("release", "driver", "kernel"),
    [("22.04", "525.78.01", "5.15.0-58-generic"), ("24.04", "550.127.08", "6.8.0-51-generic")],
)
def test_prebuilt_modules_their_objects_and_signatures_are_the_driver_s_and_held(
    release: str, driver: str, kernel: str
) -> None:
    rows = [line.split() for line in text(f"{release}/dpkg-l-prebuilt.txt").splitlines()]
    found = dpkg.parse("".join(f"install\t{'installed' if state == 'ii' else 'config-files'}\t{name}\t{version}\n"
                               for state, name, version, *_rest in rows))  # fmt: skip
    assert {name for name in found if name.endswith(kernel)} == {
        f"linux-modules-nvidia-{driver[:3]}{'-server' * (release == '24.04')}-{kernel}",
        f"linux-objects-nvidia-{driver[:3]}{'-server' * (release == '24.04')}-{kernel}",
        f"linux-signatures-nvidia-{kernel}",
    }
    assert all(package_state.is_driver_part(name) for name in found)
    assert dpkg.driver_version(found) == driver  # those of the kernel have its version
    assert "nvidia-compute-utils-525" not in found  # removed; only its configuration is left


def test_modules_that_were_made_for_another_driver_are_read_from_apt_s_lines() -> None:
    """An open one is bound from both sides, a proprietary one from below alone."""
    unmet = package_causes.unmet(text("22.04/apt-unmet-prebuilt.txt").splitlines())
    assert [(package, len(relations)) for package, relations, _line in unmet] == [
        ("linux-modules-nvidia-550-server-5.15.0-106-generic", 1),
        ("linux-modules-nvidia-550-server-open-5.15.0-106-generic", 2),
    ]


def test_both_flavours_beside_each_other() -> None:
    """Ubuntu 26.04: files of one name, and depmod took the proprietary one, with which no Blackwell GPU starts."""
    listed = text("26.04/packages-of-both-flavours.txt").split()
    flavors = {name: driver_packages.flavor_of_prebuilt(name) for name in listed}
    assert {name for name, flavor in flavors.items() if flavor == "proprietary"} == set(listed[3:])
    assert {name for name, flavor in flavors.items() if flavor == "open"} == set(listed[1:3])

    version = "595.71.05"
    state: Any = {"nvswitches": 0, "fabric": {"switch_managers": 0, "spans_hosts": False}, "fabric_manager": None,
                  "packages": {name: {"version": "7.0.0-28.28", "hold": True, "broken": False} for name in listed[1:]}}  # fmt: skip
    kernel = "7.0.0-28-generic"
    offered = {name: [f"{version}-0ubuntu0.26.04.1"] for name in names(version, "open", kernel)}
    offered[f"linux-modules-nvidia-595-server-open-{kernel}"] = ["7.0.0-28.28"]
    work = transaction.decide(
        Declared(version, "ubuntu", "open", prebuilt_modules=True), state, offered, "Ubuntu", [kernel]
    )
    assert set(work.remove) == set(listed[3:])


def test_what_depmod_chose_is_found_before_it_is_loaded() -> None:
    licence, path = (line for line in text("26.04/modinfo-both-flavours.txt").splitlines() if not line.startswith("$"))

    def run(argv: Sequence[str], _deadline: float) -> CommandResult:
        if argv[0] == "modprobe":
            return CommandResult(0, f"insmod {path} \n")
        return CommandResult(0, licence if "license" in argv else "595.71.05\n")

    found = module_file.find("7.0.0-28-generic", run=run)
    assert (found.path, found.flavor) == (path, "proprietary")
    cause = (module_file.obstacle(found, "595.71.05", "open") or ("", ""))[0]
    assert cause == f"modprobe nvidia would load proprietary kernel modules ({path}), open ones are declared"


def test_a_cloud_s_prebuilt_module_behind_an_install_line() -> None:
    """Confidential computing loads two modules first: the one that counts is the last, which ignores the line itself."""
    line = text("24.04/modprobe.d-confidential-computing.conf").replace("install nvidia ", "install ")
    assert module_file.handed_to(line) == "nvidia"
    fields = dict(one.split(": ") for one in text("24.04/modinfo-gcp.txt").splitlines())

    def run(argv: Sequence[str], _deadline: float) -> CommandResult:
        if argv[0] == "modinfo":
            return CommandResult(0, fields[argv[2]] + "\n")
        return CommandResult(0, f"insmod {fields['filename']} \n" if "-i" in argv else line)

    found = module_file.find("6.17.0-1018-gcp", run=run)
    assert (found.version, found.flavor) == ("580.159.03", "open")


@pytest.mark.parametrize(
    ("running", "installed", "loader", "next_boot"),
    [
        # 22.04, HWE: a new kernel was installed before its modules were there, and an unattended reboot took it.
        ("6.8.0-110-generic", ["6.8.0-110-generic", "6.8.0-111-generic"], "GRUB_DEFAULT=0\n", ("6.8.0-110-generic", "6.8.0-111-generic")),
        ("6.17.0-1018-gcp", ["6.8.0-51-generic", "6.17.0-1018-gcp"], "", ("6.17.0-1018-gcp",)),
        ("7.0.0-14-generic", ["7.0.0-14-generic", "7.0.0-28-generic"], "", ("7.0.0-14-generic", "7.0.0-28-generic")),
    ],
)  # fmt: skip
def test_kernels_of_the_next_boot(running: str, installed: list[str], loader: str, next_boot: tuple[str, ...]) -> None:
    assert boot_kernels.bootable(running, installed, loader) == next_boot


def test_unattended_upgrades_are_kept_from_all_of_it() -> None:
    """What upgraded a driver under running programs, on many hosts; the role's list is of prefixes."""
    upgraded = re.findall(r"^Upgrade: (\S+?):", text("history-unattended-upgrade-20.04.txt"), re.MULTILINE)
    listed = [line.split()[1] for release in ("22.04", "24.04")
              for line in text(f"{release}/dpkg-l-prebuilt.txt").splitlines()]  # fmt: skip
    defaults = (Path(__file__).parents[4] / "roles/gpu_host/defaults/main.yml").read_text()
    prefixes = re.findall(
        r"^  - (\S+-?)$", defaults.partition("gpu_host_no_unattended_upgrades:")[2].partition("\n\n")[0], re.MULTILINE
    )
    assert upgraded == ["libnvidia-common-460"]
    assert not [name for name in (*upgraded, *listed) if not name.startswith(tuple(prefixes))]
