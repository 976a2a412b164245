"""Driver versions, in packages and in order."""

from __future__ import annotations

import itertools
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


RELEASES = [
    "0.26.1rc1.dev78",
    "0.26.1rc1.dev148+gd9fbe526c.d20260825",
    "0.26.1rc1",
    "0.26.1",
    "0.28.1rc1.dev355+g31e9c1368",
    "0.28.1",
    "2.15.0.dev20261101",
    "2.15.0a0+git1234567",
    "2.15.0b1",
    "2.15.0rc1",
    "2.15.0rc2",
    "2.15.0+cu130",
    "2.15.0.post1",
    "2.15.1",
    "6.8.0-45-generic",
    "6.8.0-60-generic",
    "6.8.0-1015-aws",
    "6.18.44-node",
    "6.19~rc4-amd64",
    "6.19-rc6",
    "6.19.0-amd64",
    "6.19.3-amd64",
    "535.216.03-2~bpo12+1",
    "535.261.03-1~deb12u1",
    "535.261.03-1",
    "550.90.07",
    "550.127.05",
]


@pytest.mark.parametrize(("earlier", "later"), list(itertools.pairwise(RELEASES)))
def test_releases_are_ordered_as_they_came(earlier: str, later: str) -> None:
    assert versions.release_key(earlier) < versions.release_key(later)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1:550.127.05-1", "550.127.05-1"), ("v2.30.4", "2.30.4"), ("2.15rc1", "2.15.0rc1"), ("", "unknown")],
)
def test_writings_of_one_release(one: str, other: str) -> None:
    assert versions.release_key(one) == versions.release_key(other)
