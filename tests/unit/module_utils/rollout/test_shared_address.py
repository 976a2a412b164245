"""The address that routers share: order, peers, and what refuses a run."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.filter import routers
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import shared_address
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.endpoints import router_url
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import HostState
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.shared_address import Peers
from tests.unit.documented import documented
from tests.unit.networks import networks

TWO = {"r1": "10.0.0.5", "r2": "10.0.0.6"}
GOOD: Any = {"vllm_haproxy_virtual_address": "10.0.0.100/24", "vllm_haproxy_virtual_interface": "eth0"}
STATE = HostState.parse({"networks": networks(eth0="10.0.0.5", lo="127.0.0.1")})


@pytest.mark.parametrize(
    ("router", "expected"),
    [
        ("r1", Peers("10.0.0.5", ("10.0.0.6",), 200)),
        ("r2", Peers("10.0.0.6", ("10.0.0.5",), 199)),
    ],
)
def test_the_first_one_goes_before_and_each_talks_to_the_others_alone(router: str, expected: Peers) -> None:
    assert shared_address.peers(TWO, router) == expected


def test_one_that_cannot_answer_is_below_the_last_that_can() -> None:
    many = {f"r{n}": f"10.0.0.{n}" for n in range(shared_address.MOST_ROUTERS)}
    priorities = [shared_address.peers(many, router).priority for router in many]
    assert priorities == sorted(priorities, reverse=True)
    assert max(priorities) - 100 < min(priorities)
    assert min(priorities) - 100 >= 1
    assert max(priorities) <= 254


@pytest.mark.parametrize(
    ("settings", "addresses", "said"),
    [
        (GOOD, TWO, []),
        ({}, {"r1": "10.0.0.5"}, []),
        (GOOD, {"r1": "10.0.0.5"}, ["group router has 1 hosts: 2 to 50 can share vllm_haproxy_virtual_address"]),
        (GOOD, {**TWO, "r2": "r2.example.com"}, ["r2 is reached at 'r2.example.com', and VRRP takes addresses"]),
        ({**GOOD, "vllm_haproxy_virtual_address": "vip"}, TWO, ["vllm_haproxy_virtual_address is 'vip': write 10.30.0.100"]),
        ({**GOOD, "vllm_haproxy_virtual_address": "10.0.0.6"}, TWO, ["10.0.0.6 is a router's own"]),
        ({**GOOD, "vllm_haproxy_virtual_interface": ""}, TWO, ["vllm_haproxy_virtual_interface is not set"]),
        ({**GOOD, "vllm_haproxy_virtual_interface": "eth9"}, TWO, ["eth9 is not there (eth0 10.0.0.5, lo 127.0.0.1)"]),
    ],
)  # fmt: skip
def test_what_keeps_routers_from_sharing_an_address(settings: Any, addresses: dict[str, str], said: list[str]) -> None:
    found = [str(each.stop) for each in shared_address.findings("r1", settings, addresses, STATE) if each.refuses]
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))
    if len(addresses) == 1 and settings:
        documented("one router, and an address to share", found[0])


def test_the_role_s_filter_takes_the_address_that_requests_come_from() -> None:
    hostvars = {"r1": {"ansible_host": "10.0.0.5"}, "r2": {"ansible_host": "r2", "vllm_haproxy_address": "10.0.0.6"}}
    given = routers.router_peers(hostvars, {"router": ["r1", "r2"]}, "r2")
    assert given == {"address": "10.0.0.6", "peers": ("10.0.0.5",), "priority": 199}
    with pytest.raises(routers.AnsibleFilterError, match="has 1 hosts"):
        routers.router_peers(hostvars, {"router": ["r1"]}, "r1")


def test_clients_use_the_shared_address() -> None:
    shared: Any = {**GOOD, "vllm_haproxy_api_port": 8080}
    assert router_url(shared, "10.0.0.5") == "http://10.0.0.100:8080/v1"
