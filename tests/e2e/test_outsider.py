"""What a machine that is no host of the replica gets from its hosts while they serve, and what becomes of their packet filter.

The mirror is that machine; the controller is a client that the inventory allows; the worker shows that the scanner finds and
speaks what there is.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lab import Lab, Play, eventually
from tests.e2e.test_site import answers
from tests.machine import PATIENCE

HEAD, WORKER, OUTSIDER = "a1", "a2", "mirror"
SCANNER = Path(__file__).with_name("port_scanner.py")
BACK_WITHIN = 5.0
"""Seconds in which the filter is to be back."""
NFT = "nft --stateless list table inet lockstep"
CHECK = "PYTHONPATH=/opt/lockstep/lib python3 -m lockstep.ray.firewall_live check"
METRICS = "cd /run && PYTHONPATH=/opt/lockstep/lib python3 -m lockstep.host.metrics --output m.prom && cat m.prom && rm m.prom"
NOT_OURS = 2000
"""A UDP port that is none of Lockstep's, where nobody listens: the host itself says so."""

# On the head, as vLLM's publishers do: sends to whoever has come, unasked. Its port is one that the kernel hands out.
PUBLISH = """
import socket, time
one = socket.create_server(("0.0.0.0", 45555))
while True:
    caller, _ = one.accept()
    try:
        while True:
            caller.send(b"x")
            time.sleep(0.1)
    except OSError:
        pass
"""
# Comes in as soon as it can, and listens until nothing comes for three seconds. Prints for how many seconds something came.
SUBSCRIBE = """
import socket, sys, time
end = time.monotonic() + 200
while time.monotonic() < end:
    try:
        one = socket.create_connection((sys.argv[1], 45555), timeout=3)
        break
    except OSError:
        time.sleep(0.1)
print("connected", flush=True)
began = last = time.monotonic()
try:
    while last < began + 300 and one.recv(64):
        last = time.monotonic()
except OSError:
    pass
print(last - began)
"""
# Says whether it gets a connection, and for how many seconds it tried.
CONNECT = """
import socket, sys, time
began = time.monotonic()
try:
    socket.create_connection((sys.argv[1], 22), timeout=10).close()
    answer = "connected"
except OSError as error:
    answer = type(error).__name__
print(answer, time.monotonic() - began)
"""


@pytest.fixture(scope="module")
def serving(lab: Lab) -> Play:
    play = lab.play()
    assert play.rc == 0, play.explained()
    return play


def scan(lab: Lab, source: str | None, target: str) -> dict[str, Any]:
    """What ``source`` (None: this machine, the controller) gets from ``target``: kinds by port, and UDP ports reached."""
    address = lab.address(target)
    if source is None:
        text = subprocess.run([sys.executable, SCANNER, address], capture_output=True, text=True, check=True).stdout
    else:
        text = lab.on(source, f"python3 - {address} <<'END'\n{SCANNER.read_text()}\nEND")
    found: dict[str, Any] = json.loads(text)
    return found


def reaches(lab: Lab, source: str, target: str, user: str) -> bool:
    """Whether a program of ``user`` on ``source`` gets a connection to sshd of ``target``; a refusal has to come at once."""
    said = lab.on(source, f"runuser -u {user} -- python3 - {lab.address(target)} <<'END'\n{CONNECT}\nEND")
    answer, seconds = said.split()
    assert answer == "connected" or float(seconds) < 3, said
    return answer == "connected"


def test_an_outsider_gets_nothing_and_a_client_the_api(lab: Lab, serving: Play) -> None:
    asked = {
        "outsider→head": (OUTSIDER, HEAD),
        "outsider→worker": (OUTSIDER, WORKER),
        "client": (None, HEAD),
        "peer": (WORKER, HEAD),
    }
    with ThreadPoolExecutor(len(asked)) as pool:
        found = dict(zip(asked, pool.map(lambda pair: scan(lab, *pair), asked.values()), strict=True))
    assert found["outsider→head"] == {"open": {"22": "ssh"}, "udp": [NOT_OURS]}
    assert found["outsider→worker"] == {"open": {"22": "ssh"}, "udp": [NOT_OURS]}
    assert set(found["client"]["open"]) == {"22", "8000", "8001"}
    kinds = set(found["peer"]["open"].values())
    assert {"zmtp", "store"} <= kinds, f"the scanner finds neither from a peer, so it proves nothing: {found['peer']}"
    assert len(found["peer"]["udp"]) > 1


@pytest.mark.parametrize("command", ["nft flush ruleset", "systemctl restart nftables"])
def test_a_flushed_filter_is_back_within_seconds_and_ray_never_stops(lab: Lab, serving: Play, command: str) -> None:
    before, ray = lab.on(HEAD, NFT), lab.on(HEAD, "systemctl show --value -p MainPID lockstep-ray lockstep-vllm")
    lab.on(HEAD, command)
    eventually("the filter is back", lambda: lab.on(HEAD, NFT, check=False) == before, BACK_WITHIN)
    assert lab.on(HEAD, "systemctl show --value -p MainPID lockstep-ray lockstep-vllm") == ray


def test_what_an_outsider_began_meanwhile_ends_and_everybody_says_so(lab: Lab, serving: Play) -> None:
    lab.on(HEAD, f"systemd-run --quiet --collect --unit=publisher python3 -c '{PUBLISH}'")
    lab.on(HEAD, "systemctl stop lockstep-filter-watch; nft delete table inet lockstep")
    try:
        (host,) = [host for host in lab.status()["replicas"][0]["hosts"] if host["host"] == HEAD]
        assert host["filter"] == "wrong: its table is not loaded"
        assert lab.on(HEAD, CHECK, check=False) == "its table is not loaded"
        assert re.search(r"^lockstep_filter_ok(\{.*\})? 0$", lab.on(HEAD, METRICS), re.MULTILINE)
        lab.on(OUTSIDER, f"nohup python3 -c '{SUBSCRIBE}' {lab.address(HEAD)} >/tmp/subscriber 2>&1 &")
        eventually("the outsider is in", lambda: "connected" in lab.on(OUTSIDER, "cat /tmp/subscriber"), PATIENCE)
    finally:
        lab.on(HEAD, "systemctl start lockstep-filter-watch")
    eventually("its connection has ended", lambda: len(lab.on(OUTSIDER, "cat /tmp/subscriber").split()) == 2, PATIENCE)
    assert 0 < float(lab.on(OUTSIDER, "cat /tmp/subscriber").split()[1]) < 200
    assert lab.on(HEAD, CHECK) == "the packet filter is as wanted"
    lab.on(HEAD, "systemctl stop publisher")


@pytest.mark.long
def test_without_rules_no_ray(lab: Lab, serving: Play) -> None:
    """A damaged host.json: what is loaded stays; where nothing can be loaded Ray goes down, and does not start."""
    lab.on(
        WORKER, "cp /etc/lockstep/host.json /root/host.json && echo '{' >/etc/lockstep/host.json && nft flush ruleset"
    )
    try:
        eventually("the last rules are back", lambda: "drop" in lab.on(WORKER, NFT, check=False), BACK_WITHIN)
        assert lab.on(WORKER, "systemctl is-active lockstep-ray") == "active"
        lab.on(WORKER, "rm /run/lockstep-filter/loaded.json; nft flush ruleset")
        eventually(
            "Ray is down", lambda: lab.on(WORKER, "systemctl is-active lockstep-ray", check=False) != "active", 20
        )
        lab.on(WORKER, "systemctl stop lockstep-filter; systemctl start lockstep-ray", check=False)
        assert lab.on(WORKER, "systemctl is-active lockstep-ray", check=False) != "active"
    finally:
        lab.on(WORKER, "mv /root/host.json /etc/lockstep/host.json")
    play = lab.play()
    assert play.rc == 0, play.explained()
    assert lab.on(WORKER, CHECK) == "the packet filter is as wanted"
    assert answers(lab)
