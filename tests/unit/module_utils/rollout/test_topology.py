"""Inventories that mean a cluster, and those that cannot: each fault is named with its host and its remediation."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from tests.unit.documented import documented

GOOD_GROUPS = {"all": ["a1", "a2", "b1"], "lockstep": ["a1", "a2", "b1"], "ra": ["a1", "a2"], "rb": ["b1"]}


def host(role: str | None = "worker", address: str = "10.0.0.9", **more: object) -> dict[str, object]:
    variables = {"ray_node_role": role, "gpu_host_address": address, "gpu_host_interface": "eth0", **more}
    return {name: value for name, value in variables.items() if value is not None}


def good_vars() -> dict[str, dict[str, object]]:
    return {
        "a1": host("worker", "10.0.0.1"),
        "a2": host("head", "10.0.0.2"),
        "b1": host("head", "10.0.0.3", gpu_host_zone="z2"),
    }


def test_head_stands_first_and_order_is_the_inventorys() -> None:
    found = topology.read(GOOD_GROUPS, ["ra", "rb"], good_vars())
    assert found.problems == ()
    assert [(replica.name, replica.hosts, replica.zone) for replica in found.replicas] == [
        ("ra", ("a2", "a1"), None),
        ("rb", ("b1",), "z2"),
    ]
    assert found.replica_of("a1").name == "ra"
    with pytest.raises(KeyError):
        found.replica_of("zz")


@pytest.mark.parametrize(
    ("groups", "replicas", "changes", "fragments"),
    [
        pytest.param({"all": []}, [], {}, ["no group 'lockstep'"], id="no root group"),
        pytest.param({"all": ["a1"], "lockstep": ["a1"]}, [], {}, ["no child groups"], id="no replicas"),
        pytest.param(GOOD_GROUPS, ["ra", "rb"], {"a2": host("worker", "10.0.0.2")}, ["ra has no head"], id="no head"),
        pytest.param(
            GOOD_GROUPS, ["ra", "rb"], {"a1": host("head", "10.0.0.1")}, ["ra has 2 heads (a1, a2)"], id="two heads"
        ),
        pytest.param(
            {**GOOD_GROUPS, "rb": ["b1", "a1"]},
            ["ra", "rb"],
            {},
            ["a1 is in replicas ra and rb"],
            id="host in two replicas",
        ),
        pytest.param(
            {**GOOD_GROUPS, "lockstep": ["a1", "a2", "b1", "c1"]},
            ["ra", "rb"],
            {"c1": host("worker", "10.0.0.4")},
            ["c1 is in 'lockstep' but in no replica"],
            id="host in no replica",
        ),
        pytest.param(
            {**GOOD_GROUPS, "replcia_c": ["c1"]},
            ["ra", "rb"],
            {"c1": host("head", "10.0.0.4")},
            ["c1", "unknown group replcia_c"],
            id="unknown group",
        ),
        pytest.param(
            GOOD_GROUPS, ["ra", "rb"], {"a1": host("boss", "10.0.0.1")}, ["a1", "'boss'", "head or worker"], id="role"
        ),
        pytest.param(
            GOOD_GROUPS,
            ["ra", "rb"],
            {"a1": {"ray_node_role": "worker", "gpu_host_address": "10.0.0.1"}},
            ["a1", "gpu_host_interface is not set"],
            id="no interface",
        ),
        pytest.param(
            GOOD_GROUPS,
            ["ra", "rb"],
            {"a1": host("worker", "10.0.0.3")},
            ["a1 and b1 share the address 10.0.0.3"],
            id="address",
        ),
        pytest.param(
            GOOD_GROUPS,
            ["ra", "rb"],
            {"a1": host("worker", "10.0.0.1", gpu_host_zone="z1")},
            ["ra spans zones", "a1=z1"],
            id="zones",
        ),
        pytest.param({**GOOD_GROUPS, "rb": []}, ["ra", "rb"], {}, ["replica rb has no hosts"], id="empty replica"),
    ],
)
def test_faults(groups: dict, replicas: list, changes: dict, fragments: list[str]) -> None:
    found = topology.read(groups, replicas, {**good_vars(), **changes})
    assert found.replicas == ()
    text = "\n".join(found.problems)
    assert all(fragment in text for fragment in fragments), text


@pytest.mark.parametrize(
    ("address", "fragment"),
    [
        ("127.0.0.1", "loopback"),
        ("127.1.2.3", "loopback"),
        ("::1", "no IPv4 address"),
        ("2001:db8::1", "no IPv4 address"),
        ("0.0.0.0", "no address of a host"),
        ("224.0.0.1", "no address of a host"),
        ("255.255.255.255", "no address of a host"),
        ("gpu-01", "no IP address"),
        ("10.0.0.1/24", "no IP address"),
    ],
)
def test_an_address_that_no_host_reaches(address: str, fragment: str) -> None:
    (problem,) = topology.read(GOOD_GROUPS, ["ra", "rb"], {**good_vars(), "a1": host("worker", address)}).problems
    assert problem.startswith(f"a1 (ra): gpu_host_address {address} is ")
    assert fragment in problem
    if address in ("127.0.0.1", "2001:db8::1"):
        documented(f"address {address}", problem)


@pytest.mark.parametrize("name", ["router", "lockstep_waves", "lockstep_prepare", "ungrouped"])
def test_a_replica_is_no_group_of_ours(name: str) -> None:
    groups = {"all": ["a1"], "lockstep": ["a1"], name: ["a1"]}
    (problem,) = topology.read(groups, [name], {"a1": host("head", "10.0.0.1")}).problems
    assert problem == f"replica {name} has the name of a group that Lockstep uses itself: give the replica another name"
    documented("a replica with the name of a group of ours", problem)
