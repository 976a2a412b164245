"""Names, addresses and files of an instance."""

from __future__ import annotations

import pytest

from testbed.lib import layout
from testbed.lib.errors import UsageError


def test_defaults_with_an_empty_environment() -> None:
    assert layout.instance_from({}) == layout.Instance("testbed", "10.89.77")
    assert layout.instance_from({"LOCKSTEP_TESTBED": "", "LOCKSTEP_TESTBED_PREFIX": ""}) == layout.Instance(
        "testbed", "10.89.77"
    )


@pytest.mark.parametrize("name", ["Testbed", "1st", "a b", "../x", "x" * 22])
def test_an_instance_name_that_cannot_name_a_container_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="LOCKSTEP_TESTBED="):
        layout.instance_from({"LOCKSTEP_TESTBED": name})


@pytest.mark.parametrize("prefix", ["10.89", "10.89.77.0", "10.89.300", "8.8.8", "eth0"])
def test_a_prefix_that_is_no_private_network_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError, match="LOCKSTEP_TESTBED_PREFIX="):
        layout.instance_from({"LOCKSTEP_TESTBED_PREFIX": prefix})


@pytest.mark.parametrize(
    ("count", "router", "expected"),
    [
        (2, False, ("mirror", "a1", "a2")),
        (4, False, ("mirror", "a1", "a2", "b1", "b2")),
        (2, True, ("mirror", "a1", "a2", "router1")),
    ],
)
def test_hosts_of_a_testbed(count: int, router: bool, expected: tuple[str, ...]) -> None:
    assert layout.hosts_for(count, router) == expected


@pytest.mark.parametrize("count", [0, 1, 3, 5, -2])
def test_other_sizes_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match="2 or 4"):
        layout.hosts_for(count, False)


def test_every_name_stands_in_the_hosts_file_with_its_own_line_first() -> None:
    lines = layout.hosts_file(layout.Instance("x", "10.1.2"), "a2").splitlines()
    named = [line.split() for line in lines if line.startswith("10.1.2.")]
    assert named[0] == ["10.1.2.12", "a2.testbed.test", "a2"]
    assert {names[2] for names in named} == set(layout.ADDRESSES)
    assert len({names[0] for names in named}) == len(layout.ADDRESSES)


def test_ssh_trusts_pinned_keys_only() -> None:
    config = layout.ssh_config(layout.Instance("x", "10.1.2"))
    assert "StrictHostKeyChecking yes" in config
    assert "Host a1\n  HostName 10.1.2.11\n" in config


def test_every_host_has_a_mac_address_of_its_own_that_no_vendor_gave() -> None:
    instance = layout.Instance("x", "10.1.2")
    assert instance.mac_address("a2") == "02:00:0a:01:02:0c"
    assert len({instance.mac_address(host) for host in layout.ADDRESSES}) == len(layout.ADDRESSES)
