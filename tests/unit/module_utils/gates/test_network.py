"""The network gate: a table of observations, and two responders that really talk over loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import network as network_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import network_probe
from tests.machine import PATIENCE, loopback

IDENTITY = {
    "host": "a1",
    "replica": "replica_a",
    "address": "10.0.0.11",
    "interface": "eth0",
    "zone": "z1",
    "head": {"host": "a1", "address": "10.0.0.11"},
    "peers": {"a1": "10.0.0.11", "a2": "10.0.0.12", "a3": "10.0.0.13"},
}
PEER = {"silent": None, "unreachable": [], "zone": "z1", "mtu": 1500, "rtt_ms": 0.2, "clock_skew_seconds": 0.001}
SEEN = {
    "interface": {"name": "eth0", "owns": True, "owners": ["eth0"], "mtu": 1500},
    "names": {name: {"problem": None, "seconds": 0.01} for name in ("a1", "a2", "a3")},
    "peers": {"a2": PEER, "a3": PEER},
    "complaints": {"a2": [], "a3": []},
    "limits": {"lockstep-ray.service": {"installed": True, "memlock_bytes": None, "shm_mib": 2048}},
    "rdma": [],
    "control_error": None,
}
PORT = {
    "device": "mlx5_0",
    "port": "1",
    "state": "ACTIVE",
    "rate": "400 Gb/sec",
    "link_layer": "Ethernet",
    "model": "MT4129",
    "gids": {"3": {"gid": "0000:0000:0000:0000:0000:ffff:0a00:000b", "type": "RoCE v2"}},
}


def changed(path, value):
    seen = json.loads(json.dumps(SEEN))
    place = seen
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return seen


def peers(**values):
    seen = json.loads(json.dumps(SEEN))
    for peer in seen["peers"].values():
        peer.update(values)
    return seen


LIMITS = network_gate.Limits()
CASES = [
    ("good", SEEN, LIMITS, ("ok", "a1", None)),
    ("names", changed(["names", "a2", "problem"], "a2 does not resolve"), LIMITS, ("names", "a1", None)),
    ("slow names", changed(["names", "a2", "seconds"], 5.0), LIMITS, ("names_slow", "a1", None)),
    (
        "address on another interface",
        {**SEEN, "interface": {"name": "eth0", "owns": False, "owners": ["eth1"], "mtu": 1500}, "peers": {}},
        LIMITS,
        ("interface", "a1", None),
    ),
    ("one peer silent", changed(["peers", "a2", "silent"], "timed out"), LIMITS, ("peer_silent", "a2", ("a1", "a2"))),
    ("all peers silent: it is this host", peers(silent="timed out"), LIMITS, ("peer_silent", "a1", ("a1", "a2"))),
    ("a peer's port", changed(["peers", "a2", "unreachable"], [6380]), LIMITS, ("port_blocked", "a2", ("a1", "a2"))),
    (
        "own port, reported by a peer",
        changed(["complaints", "a3"], [6380]),
        LIMITS,
        ("port_blocked", "a1", ("a1", "a3")),
    ),
    ("small packets only", changed(["peers", "a2", "mtu"], 1450), LIMITS, ("mtu", "a1", ("a1", "a2"))),
    ("no datagram", changed(["peers", "a2", "mtu"], None), LIMITS, ("mtu", "a1", ("a1", "a2"))),
    ("another zone", changed(["peers", "a2", "zone"], "z2"), LIMITS, ("zone", "a2", ("a1", "a2"))),
    ("far away", changed(["peers", "a2", "rtt_ms"], 30.0), LIMITS, ("rtt", "a2", ("a1", "a2"))),
    (
        "far away, and allowed",
        changed(["peers", "a2", "rtt_ms"], 30.0),
        network_gate.Limits(rtt_ms=None),
        ("ok", "a1", None),
    ),
    ("one clock", changed(["peers", "a2", "clock_skew_seconds"], -3.0), LIMITS, ("clock_skew", "a2", ("a1", "a2"))),
    ("all clocks: it is this host's", peers(clock_skew_seconds=4.0), LIMITS, ("clock_skew", "a1", ("a1", "a2"))),
    ("small shm", changed(["limits", "lockstep-ray.service", "shm_mib"], 64), LIMITS, ("shm", "a1", None)),
    (
        "unit absent",
        changed(["limits", "lockstep-ray.service"], {"installed": False, "memlock_bytes": None, "shm_mib": None}),
        LIMITS,
        ("ok", "a1", None),
    ),
    ("rdma demanded, none there", SEEN, network_gate.Limits(rdma=True), ("rdma_down", "a1", None)),
    ("rdma demanded and up", {**SEEN, "rdma": [PORT]}, network_gate.Limits(rdma=True), ("ok", "a1", None)),
    (
        "rdma without a GID",
        {**SEEN, "rdma": [{**PORT, "gids": {}}]},
        network_gate.Limits(rdma=True),
        ("rdma_down", "a1", None),
    ),
    (
        "memlock with rdma",
        {**changed(["limits", "lockstep-ray.service", "memlock_bytes"], 65536), "rdma": [PORT]},
        LIMITS,
        ("memlock", "a1", None),
    ),
]


@pytest.mark.parametrize(("seen", "limits", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_evaluate(seen, limits, expected):
    result = network_gate.evaluate(seen, IDENTITY, limits, 1.0)
    assert (result.code, result.host, result.pair) == expected
    assert result.passed == (result.code == "ok")
    assert bool(result.cause) == bool(result.next) == (not result.passed)


def test_a_packet_filter_that_is_not_as_wanted_comes_before_ports():
    seen = changed(["peers", "a2", "unreachable"], [6380])
    result = network_gate.evaluate(seen, IDENTITY, LIMITS, 1.0, "its table is not loaded")
    assert (result.verdict, result.code, result.host) == ("fail", "unfiltered", "a1")
    assert result.cause.startswith("the packet filter of a1 is not as wanted: its table is not loaded; ")
    assert network_gate.evaluate(seen, IDENTITY, LIMITS, 1.0).code == "port_blocked"


def test_rdma_goes_past_every_filter_and_that_is_said():
    assert network_gate.evaluate({**SEEN, "rdma": [PORT]}, IDENTITY, LIMITS, 1.0).warnings == (
        "RDMA on a1, mlx5_0/1: no packet filter sees it and nothing encrypts it",
    )


def test_what_may_be_locked_matters_to_rdma_alone():
    seen = changed(["limits", "lockstep-ray.service", "memlock_bytes"], 65536)
    assert network_gate.evaluate(seen, IDENTITY, LIMITS, 1.0).warnings == ()
    assert network_gate.evaluate({**seen, "rdma": [PORT]}, IDENTITY, LIMITS, 1.0).code == "memlock"


def test_idle_rdma_ports_only_warn():
    down = {**SEEN, "rdma": [PORT, {**PORT, "device": "mlx5_1", "state": "DOWN"}]}
    assert network_gate.evaluate(down, IDENTITY, LIMITS, 1.0).warnings[1:] == ("RDMA on a1: mlx5_1/1 is DOWN",)


def test_every_problem_is_listed():
    seen = changed(["peers", "a2", "unreachable"], [6380, 6381])
    seen["names"]["a3"]["problem"] = "a3 does not resolve"
    result = network_gate.evaluate(seen, IDENTITY, LIMITS, 1.0)
    assert [problem["code"] for problem in result.measured["problems"]] == ["names", "port_blocked"]
    assert "6380, 6381" in result.cause


def node(name):
    """One of two hosts on loopback."""
    addresses = {"n1": loopback(1), "n2": loopback(2)}
    return {
        "host": name,
        "address": addresses[name],
        "interface": "lo",
        "zone": "z1",
        "head": {"host": "n1", "address": addresses["n1"]},
        "peers": addresses,
    }


@pytest.fixture
def responders():
    both = [network_probe.Responder(node("n1"), [29651, 29652]), network_probe.Responder(node("n2"), [29651])]
    yield both
    for one in both:
        one.close()


def test_two_hosts_ask_each_other(responders, monkeypatch):
    end, tried, really = time.monotonic() + PATIENCE, [], network_probe._unreachable
    monkeypatch.setattr(network_probe, "_unreachable", lambda *asked: tried.append(asked[2]) or really(*asked))
    seen = network_probe._ask(node("n1"), "n2", loopback(2), [29651, 29652], 1500, end)
    assert seen["silent"] is None
    assert seen["unreachable"] == [29652]  # n2 does not listen there
    assert tried == [[29651, 29652, responders[1].chosen]]  # the last as vLLM and NCCL get theirs: from the kernel
    assert seen["zone"] == "z1"
    assert seen["mtu"] == 1500
    assert 0 < seen["rtt_ms"] < PATIENCE * 1000
    # It is one clock: the offset is wrong by half a round trip at most, and is of the quickest of them.
    assert abs(seen["clock_skew_seconds"]) <= seen["rtt_ms"] / 2000 + 0.001
    assert responders[1].farewells == {"n1": [29652]}  # so n2 knows what n1 missed


def test_a_port_that_somebody_holds_is_left_to_him():
    with socket.socket() as taken:
        taken.bind((loopback(3), 29653))
        taken.listen()
        responder = network_probe.Responder({**node("n1"), "address": loopback(3)}, [29653])
        assert network_probe._unreachable(loopback(1), loopback(3), [29653]) == []
        responder.close()


def test_a_peer_that_is_not_there_is_silent_in_time():
    began = time.monotonic()
    seen = network_probe._ask(node("n1"), "n9", loopback(0), [29651], 1500, time.monotonic() + 1.0)
    assert "refused" in seen["silent"]
    assert time.monotonic() - began < PATIENCE


def test_a_late_peer_is_waited_for():
    late = []
    start = threading.Timer(0.6, lambda: late.append(network_probe.Responder(node("n2"), [])))
    start.start()
    seen = network_probe._ask(node("n1"), "n2", loopback(2), [], 1500, time.monotonic() + PATIENCE)
    start.join()  # a responder answers before its constructor returns
    assert seen["silent"] is None
    late[0].close()


FAR_HOST = """
import sys
from lockstep.gates import network_probe
responder = network_probe.Responder({"host": "n2", "address": "10.99.2.2"}, [])
sys.stdin.read()
"""
NEAR_HOST = f"""
import json, time
from lockstep.gates import network_probe
me = {{"host": "n1", "address": "10.99.1.2"}}
print(json.dumps(network_probe._ask(me, "n2", "10.99.2.2", [], 1500, time.monotonic() + {PATIENCE})))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_a_narrow_path_is_measured(tmp_path):
    """Two namespaces joined by a router whose far side is narrower than the near one's interface reports."""
    names = [f"lk{os.getpid() % 10000}{letter}" for letter in "abr"]
    first, second, router = names

    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def inside(space, *arguments):
        ip("netns", "exec", space, *arguments)

    try:
        for space in names:
            ip("netns", "add", space)
        for space, far, mtu in ((first, "1", "1500"), (second, "2", "1400")):
            ip("link", "add", f"{space}v", "netns", space, "type", "veth", "peer", "name", f"{space}r", "netns", router)
            inside(space, "ip", "address", "add", f"10.99.{far}.2/24", "dev", f"{space}v")
            inside(router, "ip", "address", "add", f"10.99.{far}.1/24", "dev", f"{space}r")
            for place, device in ((space, f"{space}v"), (router, f"{space}r")):
                inside(place, "ip", "link", "set", device, "mtu", mtu, "up")
            inside(space, "ip", "route", "add", "default", "via", f"10.99.{far}.1")
        inside(router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        library = tmp_path / "lib"
        library.mkdir()
        (library / "lockstep").symlink_to(Path(network_probe.__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": str(library)}
        python = [sys.executable, "-c"]
        with subprocess.Popen(
            ["ip", "netns", "exec", second, *python, FAR_HOST], env=environment, stdin=subprocess.PIPE
        ) as far:
            near = subprocess.run(
                ["ip", "netns", "exec", first, *python, NEAR_HOST],
                env=environment,
                capture_output=True,
                text=True,
                timeout=2 * PATIENCE,
            )
            far.communicate()
        assert near.stderr == ""
        assert 1390 <= json.loads(near.stdout)["mtu"] <= 1400
    finally:
        for space in names:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True)
