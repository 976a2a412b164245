"""The table of package names."""

from __future__ import annotations

import pytest

from testbed.lib import debs
from testbed.lib.driver_catalog import FLAVOURS, RELEASES, Package, branch, packages

every = pytest.mark.parametrize(("flavour", "version"), [(f, v) for f in FLAVOURS for v in RELEASES])


def names(version: str, flavour: str) -> dict[str, Package]:
    return {package.name: package for package in packages(version, flavour)}


@pytest.mark.parametrize(
    ("version", "flavour", "expected"),
    [
        ("550.90.07", "ubuntu2204", {
            "nvidia-dkms-550-open": "550.90.07-0ubuntu1", "nvidia-utils-550": "550.90.07-0ubuntu1",
            "nvidia-compute-utils-550": "550.90.07-0ubuntu1", "libnvidia-compute-550": "550.90.07-0ubuntu1",
            "nvidia-firmware-550-550.90.07": "550.90.07-0ubuntu1", "nvidia-fabricmanager-550": "550.90.07-1",
            "cuda-drivers-550": "550.90.07-1",
        }),
        ("580.95.05", "ubuntu2204", {
            "nvidia-open-580": "580.95.05-1", "nvidia-persistenced": "580.95.05-0ubuntu1",
            "nvidia-driver-pinning-580": "580-1", "nvidia-driver-pinning-580.95.05": "580.95.05-1",
        }),
        ("590.48.01", "ubuntu2204", {
            "nvidia-dkms-open": "590.48.01-1ubuntu1", "nvidia-utils": "590.48.01-1ubuntu1", "nvidia-open": "590.48.01-1",
            "nvidia-fabricmanager": "590.48.01-1", "nvidia-driver-pinning-590.48.01": "590.48.01-1",
        }),
        ("550.90.07", "debian12", {
            "nvidia-kernel-open-dkms": "550.90.07-1", "nvidia-smi": "550.90.07-1", "nvidia-fabricmanager-550": "550.90.07-1",
        }),
    ],
)  # fmt: skip
def test_names_and_versions_are_nvidias(version: str, flavour: str, expected: dict[str, str]) -> None:
    found = names(version, flavour)
    assert {name: found[name].version for name in expected} == expected


def test_no_name_carries_a_branch_from_590_on() -> None:
    assert not [name for name in names("590.48.01", "ubuntu2204") if "-590" in name and "pinning" not in name]


def test_pinning_packages_exist_from_580_on_and_exclude_each_other() -> None:
    assert not [name for name in names("550.90.07", "ubuntu2204") if "pinning" in name]
    pins = [package for package in packages("580.95.05", "ubuntu2204") if "pinning" in package.name]
    assert len(pins) == 2
    assert all(package.replaces == ("nvidia-driver-pinning",) for package in pins)


@every
def test_every_dependency_can_be_had_in_the_same_release(flavour: str, version: str) -> None:
    found = names(version, flavour)
    needed = {dependency.split()[0] for package in found.values() for dependency in package.depends}
    assert needed <= set(found)


@every
def test_dependencies_are_loose_as_the_real_ones_are(flavour: str, version: str) -> None:
    dependencies = [dependency for package in packages(version, flavour) for dependency in package.depends]
    assert dependencies
    assert all(f"(>= {version})" in dependency for dependency in dependencies)


@every
def test_each_part_of_a_driver_is_carried_by_one_package_of_its_kind(flavour: str, version: str) -> None:
    payloads = [package.payload for package in packages(version, flavour) if package.payload]
    assert len(payloads) == len(set(payloads))
    assert {"compute", "utils", "persistenced", "fabricmanager", "dkms-open", "dkms-proprietary"} <= set(payloads)


@every
def test_no_package_conflicts_with_itself(flavour: str, version: str) -> None:
    assert not [package.name for package in packages(version, flavour) if package.name in package.replaces]


def test_open_and_proprietary_modules_exclude_each_other() -> None:
    found = names("550.90.07", "ubuntu2204")
    assert set(found["nvidia-dkms-550"].replaces) & set(found["nvidia-dkms-550-open"].replaces)


def test_branch_and_upstream_version() -> None:
    assert branch("550.127.05") == 550
    assert debs.driver_version(Package("x", "550.127.05-0ubuntu1")) == "550.127.05"
