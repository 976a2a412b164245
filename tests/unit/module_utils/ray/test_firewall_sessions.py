"""Which connections came in uninvited, read of the kernel's own tables."""

from __future__ import annotations

import ipaddress
import socket

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import firewall, firewall_sessions
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.firewall_sessions import Socket, uninvited
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.ports import EnginePorts

CLOSED = (range(8000, 8002), range(32768, 61000))
OUTSIDER, PEER, CLIENT, ROUTER6 = "10.9.9.9", "10.0.0.12", "10.40.0.7", "fd00::5"
ALLOWED = firewall.allowed(
    EnginePorts(),
    firewall.Settings.parse(
        {"clients": ["10.40.0.0/16", ROUTER6], "open": [{"ports": 40000}, {"ports": 50000, "protocol": "udp"}]}
    ),
)


def listening(port: int) -> Socket:
    return Socket(port, ipaddress.ip_address("0.0.0.0"), 0, True)


def connected(port: int, peer: str) -> Socket:
    return Socket(port, ipaddress.ip_address(peer), 1234, False)


def test_only_what_others_began_on_closed_ports_is_uninvited() -> None:
    served = [listening(port) for port in (22, 8000, 9100, 40000, 45000, 50000)]
    bad = [
        connected(45000, OUTSIDER),
        connected(45000, CLIENT),
        connected(8000, OUTSIDER),
        connected(50000, OUTSIDER),  # what is open for UDP is not for TCP
    ]
    good = [
        connected(45000, PEER),
        connected(45000, "127.0.0.1"),
        connected(45001, OUTSIDER),  # nobody listens there: this host called
        connected(8000, CLIENT),
        connected(8000, ROUTER6),
        connected(40000, OUTSIDER),
        connected(22, OUTSIDER),
        connected(9100, OUTSIDER),
    ]
    assert uninvited([*served, *good, *bad], CLOSED, [PEER, "10.0.0.11"], ALLOWED) == bad


def test_the_port_of_ssh_is_nobody_s_business() -> None:
    allowed = firewall.allowed(EnginePorts(), firewall.Settings(ssh_port=40022))
    assert uninvited([listening(40022), connected(40022, OUTSIDER)], CLOSED, [PEER], allowed) == []


def test_real_sockets_of_both_families_are_read() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.7", port)) as four, socket.create_connection(("::1", port)) as six:
            found = [one for one in firewall_sessions.read() if one.port == port]
            assert [one.listens for one in found].count(True) == 1
            assert {(str(one.peer), one.peer_port) for one in found if not one.listens} == {
                four.getsockname(),
                six.getsockname()[:2],
            }


def test_each_is_ended_by_all_that_tells_it_apart() -> None:
    ran: list[list[str]] = []
    firewall_sessions.end(
        [connected(45000, OUTSIDER), connected(45000, ROUTER6)],
        lambda argv, _: ran.append(list(argv)) or CommandResult(0),
    )
    assert [" ".join(argv[5:]) for argv in ran] == [
        "dst 10.9.9.9 and dport = :1234 and sport = :45000",
        "dst [fd00::5] and dport = :1234 and sport = :45000",
    ]
