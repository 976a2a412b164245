"""The packet filter's rules, and that nftables takes them."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from typing import Any, cast

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.host_record import HostRecord, through
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import firewall, ports
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.firewall import Settings
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.ports import EnginePorts, RayPorts

PEERS = {"a1": "10.0.0.11", "a2": "10.0.0.12", "a3": "fd00::3"}
WORKER: HostRecord = {
    "host": "a2", "replica": "a", "ray_role": "worker", "address": "10.0.0.12", "interface": "eth0", "gpus": 8, "gpu_model": None,
    "zone": None, "head": {"host": "a1", "address": "10.0.0.11"}, "peers": PEERS,
}  # fmt: skip
HEAD: HostRecord = {**WORKER, "host": "a1", "ray_role": "head", "address": "10.0.0.11"}
CHOSEN = (range(32768, 61000),)
FIXED = "5557, 5600-5607, 5710-5717, 6379-6388"
GIVEN = {
    "clients": ["10.0.0.3", "10.40.0.0/16", "10.40.7.0/24", "fd00:1::/64"],
    "ssh_port": 22,
    "open": [{"ports": 51820, "protocol": "udp"}, {"ports": "40000-40010", "from": ["10.1.0.0/16", "fd00:2::/64"]}],
}


def rules(
    identity: HostRecord = HEAD, settings: dict[str, Any] | None = None, ray: RayPorts | None = None
) -> list[str]:
    """The lines of the chain, in order, without what precedes them."""
    text = firewall.rules(identity, ray or RayPorts(), EnginePorts(), Settings.parse(settings or GIVEN), CHOSEN)
    lines = [line.strip() for line in text.splitlines()]
    return lines[lines.index("chain input {") + 2 : -2]


def test_the_whole_chain_of_a_head_in_order() -> None:
    assert rules() == [
        "iif lo accept",
        "meta l4proto != { tcp, udp } accept",
        f"th dport != {{ {FIXED}, 8000-8001, 8265, 8998, 20000-20999, 29500-29699, 32768-60999 }} accept",
        "ip saddr { 10.0.0.11, 10.0.0.12 } accept",
        "ip6 saddr { fd00::3 } accept",
        "ct direction reply accept",
        "ct state related accept",
        "tcp dport 22 accept",
        "ip saddr { 10.0.0.3, 10.40.0.0/16 } tcp dport { 8000, 8001 } accept",
        "ip6 saddr { fd00:1::/64 } tcp dport { 8000, 8001 } accept",
        "meta nfproto ipv4 udp dport { 51820 } accept",
        "meta nfproto ipv6 udp dport { 51820 } accept",
        "ip saddr { 10.1.0.0/16 } tcp dport { 40000-40010 } accept",
        "ip6 saddr { fd00:2::/64 } tcp dport { 40000-40010 } accept",
        "counter drop",
    ]


TUNNELLED = cast(
    HostRecord,
    through(
        HEAD,
        {
            "interface": "lockstep0",
            "address": "198.18.0.1",
            "port": 51000,
            "peers": {"a1": "198.18.0.1", "a2": "198.18.0.2", "a3": "198.18.0.3"},
        },
    ),
)


def test_with_a_tunnel_peers_are_let_in_from_it_and_reach_one_port_of_what_carries_it() -> None:
    found = rules(TUNNELLED)
    closed = f"th dport != {{ {FIXED}, 8000-8001, 8265, 8998, 20000-20999, 29500-29699, 32768-60999 }} accept"
    assert found[found.index(closed) + 1 : found.index("ct direction reply accept")] == [
        'iifname "eth0" udp dport 51000 ip saddr { 10.0.0.11, 10.0.0.12 } accept',
        'iifname "eth0" udp dport 51000 ip6 saddr { fd00::3 } accept',
        'iifname "lockstep0" ip saddr { 198.18.0.1, 198.18.0.2/31 } accept',
    ]
    assert found[-5:] == [
        "counter drop",
        "}",
        "chain output {",
        "type filter hook output priority filter - 5; policy accept;",
        'oifname != { "lo", "lockstep0" } ip daddr { 198.18.0.1, 198.18.0.2/31 } counter drop',
    ]
    assert not [line for line in rules() if "oifname" in line]


def output(settings: dict[str, Any], identity: HostRecord = HEAD) -> list[str]:
    """The lines of the chains for what goes out."""
    text = firewall.rules(identity, RayPorts(), EnginePorts(), Settings.parse(settings), CHOSEN)
    lines = [line.strip() for line in text.splitlines()]
    return lines[lines.index("counter drop") + 2 : -1]


def test_where_what_serves_may_go_is_open_until_it_is_said() -> None:
    assert output({"clients": ["any"]}) == []
    assert output({"egress": None}) == []


def test_what_serves_goes_to_its_replica_and_to_who_is_named() -> None:
    """By the socket's user: root's apt and uv, and everybody else's services, go where they went."""
    assert output({"egress": ["10.9.0.0/16", "10.9.4.1", "fd00:9::/64"]}) == [
        "chain egress {",
        "oif lo accept",
        "ct direction reply accept",
        "ct state related accept",
        "ip daddr { 10.0.0.11, 10.0.0.12, 10.9.0.0/16 } accept",
        "ip6 daddr { fd00::3, fd00:9::/64 } accept",
        "counter reject with icmpx type admin-prohibited",
        "}",
        "chain output {",
        "type filter hook output priority filter - 5; policy accept;",
        'meta skuid "lockstep" jump egress',
        "}",
    ]


def test_nobody_named_is_the_replica_alone_and_the_tunnel_keeps_its_rule() -> None:
    found = output({"egress": []}, TUNNELLED)
    assert "ip daddr { 198.18.0.1, 198.18.0.2/31 } accept" in found
    assert found[-3:] == [
        'oifname != { "lo", "lockstep0" } ip daddr { 198.18.0.1, 198.18.0.2/31 } counter drop',
        'meta skuid "lockstep" jump egress',
        "}",
    ]
    assert not [line for line in found if "10.0.0.12" in line], "beside the tunnel a peer is nobody"


def test_the_port_that_carries_a_tunnel_is_closed_to_others_wherever_it_lies() -> None:
    low = cast(HostRecord, {**TUNNELLED, "underlay": {**TUNNELLED["underlay"], "port": 4500}})
    assert range(4500, 4501) in firewall.closed_here(low, RayPorts(), EnginePorts(), CHOSEN)


def test_a_worker_has_no_engine_to_open_or_to_close() -> None:
    """Whatever else listens on 8000 there is not Lockstep's business."""
    found = rules(WORKER)
    assert not [line for line in found if "8000" in line]
    assert f"th dport != {{ {FIXED}, 8265, 8998, 20000-20999, 29500-29699, 32768-60999 }} accept" in found


def test_nobody_reaches_the_engine_unless_named() -> None:
    assert not [line for line in rules(settings={"clients": []}) if "8000, 8001" in line]


def test_any_client_means_both_families() -> None:
    found = rules(settings={"clients": ["any", "10.0.0.3"]})
    assert [line for line in found if "8000, 8001" in line] == [
        "meta nfproto ipv4 tcp dport { 8000, 8001 } accept",
        "meta nfproto ipv6 tcp dport { 8000, 8001 } accept",
    ]


def test_only_replies_pass_not_all_that_is_established() -> None:
    """A connection that an outsider began while no table was loaded is established: it must end with the table's return."""
    assert not [line for line in rules() if "established" in line]


def test_every_port_of_ray_is_closed_wherever_it_is_moved() -> None:
    moved = RayPorts(**{field.name: 7000 + number for number, field in enumerate(dataclasses.fields(RayPorts))})
    closed = {port for some in ports.closed(moved, EnginePorts(9000, 9001), ()) for port in some}
    assert set(dataclasses.asdict(moved).values()) | {9000, 9001} <= closed
    assert not closed & {22, 53, 111, 2049, 8080, 9100, 9400, 10250}


CHOSEN_CASES = [
    ("usual", "32768\t60999\n", "\n", [(32768, 60999)]),
    ("wide", "1024 65535", "", [(1024, 65535)]),
    ("reserved within", "32768 60999", "40000-40010,51820\n", [(32768, 39999), (40011, 51819), (51821, 60999)]),
    ("reserved at the ends", "32768 60999", "32768,60999", [(32769, 60998)]),
    ("reserved outside", "32768 60999", "8080,9100-9110", [(32768, 60999)]),
    ("all reserved", "40000 40001", "39000-41000", []),
]


@pytest.mark.parametrize(
    ("local", "reserved", "expected"), [c[1:] for c in CHOSEN_CASES], ids=[c[0] for c in CHOSEN_CASES]
)
def test_what_the_kernel_hands_out(local: str, reserved: str, expected: list[tuple[int, int]]) -> None:
    assert [(one[0], one[-1]) for one in firewall.chosen_by_kernel(local, reserved)] == expected


def test_ranges_that_touch_or_overlap_are_one() -> None:
    assert ports.merged([range(5, 9), range(1, 3), range(3, 4), range(6, 7), range(0)]) == (range(1, 4), range(5, 9))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clients": ["10.0.0.300"]}, "'10.0.0.300' is neither an address nor a network"),
        ({"clients": ["gpu-01"]}, "'gpu-01' is neither an address nor a network"),
        ({"egress": ["hub.example"]}, "'hub.example' is neither an address nor a network"),
        ({"open": [{"ports": 70000}]}, "70000 is no port"),
        ({"open": [{"ports": "9-5"}]}, "'9-5' is no port"),
        ({"open": [{}]}, "None is no port"),
        ({"open": [{"ports": 1, "protocol": "sctp"}]}, "protocol is 'sctp'; tcp or udp"),
        ({"open": [{"ports": 1, "source": "any"}]}, "unknown source; known are ports, protocol, from"),
    ],
)
def test_what_means_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.parse(given)


def test_a_peer_without_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match="the address of a9 is 'gpu-09': set gpu_host_address of a9"):
        rules({**HEAD, "peers": {"a9": "gpu-09"}})


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed here; the testbed loads the rules")
@pytest.mark.parametrize("identity", [HEAD, WORKER, TUNNELLED], ids=["head", "worker", "tunnelled"])
@pytest.mark.parametrize("settings", [GIVEN, {"clients": ["any"]}, {"ssh_port": 40022}], ids=["full", "any", "bare"])
def test_nftables_takes_them(identity: HostRecord, settings: dict[str, Any]) -> None:
    text = firewall.rules(identity, RayPorts(), EnginePorts(), Settings.parse(settings), CHOSEN)
    checked = subprocess.run(["nft", "--check", "-f", "-"], input=text, capture_output=True, text=True)
    if "Operation not permitted" in checked.stderr:
        pytest.skip("nft needs root here; the testbed loads the rules")
    assert checked.returncode == 0, checked.stderr
