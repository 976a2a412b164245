"""Driver versions, in packages and in order."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import versions


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
    assert versions.upstream(package) == driver
    assert versions.is_driver_version(driver)


@pytest.mark.parametrize(
    "other", ["550", "1.16.2", "20220217+3~deb12u1", "550.127.05-0ubuntu1", "12.4.1", "5500.12.05"]
)
def test_not_a_driver_version(other: str) -> None:
    assert not versions.is_driver_version(other)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("550.163.01-4~bpo13+1", "550.163.01-4"),
        ("550.163.01-2", "550.163.01-4~bpo13+1"),
        ("535.216.03-2~bpo12+1", "535.261.03-1"),
        ("535.261.03-1", "535.309.01-0+deb12u1"),
        ("2:1.0-1", "10:1.0-1"),
        ("1.0~rc1", "1.0"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+b"),
        ("590.48-1", "590.48.01-1"),
        ("20220217+3~deb12u1", "20240109+1"),
    ],
)
def test_packages_are_ordered_as_dpkg_orders_them(older: str, newer: str) -> None:
    """dpkg itself is asked too: `dpkg --compare-versions` changes nothing."""
    assert versions.debian_key(older) < versions.debian_key(newer)
    assert not versions.debian_key(newer) < versions.debian_key(older)
    assert subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=False).returncode == 0


@pytest.mark.parametrize(("one", "other"), [("2.13.0+cu130", "2.13"), ("550.127.05", "550.127.05"), ("580.0.0", "580")])
def test_equal_releases_have_equal_keys(one: str, other: str) -> None:
    assert versions.release_key(one) == versions.release_key(other)


def test_versions_are_ordered_by_number() -> None:
    unordered = ["580.65.06", "550.127.05", "550.90.07"]
    assert sorted(unordered, key=versions.version_key) == ["550.90.07", "550.127.05", "580.65.06"]
