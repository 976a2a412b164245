"""A replica whose hosts talk through WireGuard: what crosses the wire between them, and what happens without the tunnel.

The testbed's kernel has no WireGuard, so Debian's ``wireguard-go`` does it here. Counters of nftables on both hosts show what
passes on the interface that carries the tunnel, from before anything of ours is installed.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.lab import Lab, Play, eventually
from tests.e2e.test_outsider import OUTSIDER, scan
from tests.e2e.test_site import answers

pytestmark = pytest.mark.long

HEAD, WORKER = "a1", "a2"
OTHER = {HEAD: WORKER, WORKER: HEAD}
PORT = 6389
# wireguard-go on two busy cores: the gate's 5 ms are for networks.
WANTED = {"ray_node_encryption": "wireguard", "admission_rtt_ms": 500, "vllm_server_ladder": ["none"]}
METRICS = "/var/lib/prometheus/node-exporter/lockstep.prom"
LEFT = r"""
ip -brief link show dev lockstep0 2>/dev/null
ls -d /etc/wireguard/lockstep0* /etc/lockstep /etc/systemd/system/lockstep-* 2>/dev/null | grep -v lockstep-testbed
ls /etc/systemd/system/*.wants 2>/dev/null | grep lockstep | grep -v lockstep-testbed
systemctl list-units --all --no-legend --plain 'lockstep-*' 'wg-quick@*' | grep -v lockstep-testbed
grep -n -e Lockstep -e 198.18.0 /etc/hosts
true
"""
COUNTERS = """
nft -f - <<'END'
table inet seen
delete table inet seen
table inet seen {{
  counter tunnel {{}}
  counter clear {{}}
  chain in {{
    type filter hook prerouting priority raw; policy accept;
    iifname eth0 ip saddr {peer} udp dport {port} counter name tunnel accept
    iifname eth0 ip saddr {peer} icmp type destination-unreachable accept
    iifname eth0 ip saddr {peer} counter name clear
  }}
  chain out {{
    type filter hook postrouting priority 300; policy accept;
    oifname eth0 ip daddr {peer} udp dport {port} counter name tunnel accept
    oifname eth0 ip daddr {peer} icmp type destination-unreachable accept
    oifname eth0 ip daddr {peer} counter name clear
  }}
}}
END
"""


def count(lab: Lab) -> None:
    """From now on; not what a kernel without its tunnel answers to packets of it, which quotes no more than their beginning."""
    for host, peer in OTHER.items():
        lab.on(host, COUNTERS.format(peer=lab.address(peer), port=PORT))


def counted(lab: Lab, name: str) -> dict[str, int]:
    """Bytes by host, both ways."""
    found = {}
    for host in OTHER:
        shown = json.loads(lab.on(host, f"nft -j list counter inet seen {name}"))
        found[host] = sum(int(one["counter"]["bytes"]) for one in shown["nftables"] if "counter" in one)
    return found


@pytest.fixture(scope="module")
def encrypted(lab: Lab) -> Play:
    # What served before talks in the clear until its wave stops it, and would be counted.
    for host in OTHER:
        lab.on(host, "systemctl stop 'lockstep-vllm*.service' lockstep-ray.service")
    count(lab)
    play = lab.play(extra=WANTED)
    assert play.rc == 0, play.explained()
    return play


def test_a_replica_serves_and_nothing_crosses_in_the_clear(lab: Lab, encrypted: Play) -> None:
    assert answers(lab)
    assert counted(lab, "clear") == {HEAD: 0, WORKER: 0}
    through = counted(lab, "tunnel")
    print(f"bytes through the tunnel: {through}")
    assert min(through.values()) > 1_000_000
    listening = lab.on(HEAD, "ss -Htnlp")
    assert f"{lab.address(HEAD)}:8000" in listening
    assert "198.18.0.1:" in listening, "vLLM and Gloo listen in the tunnel"


def test_the_private_keys_are_nowhere_else(lab: Lab, encrypted: Play) -> None:
    for host in OTHER:
        assert (
            lab.on(host, "stat -c '%a %U' /etc/wireguard/lockstep0.key /etc/wireguard/lockstep0.conf").split()
            == ["600", "root"] * 2
        )
        key = lab.on(host, "cat /etc/wireguard/lockstep0.key")
        assert key not in encrypted.text + json.dumps(list(encrypted.events))
        places = "/etc /var/lib/lockstep /run /opt/lockstep/lib /var/log"
        assert lab.on(host, f"grep -rlF -- '{key}' {places} || true").split() == ["/etc/wireguard/lockstep0.key"]


def test_an_outsider_gets_no_more_than_without_it(lab: Lab, encrypted: Play) -> None:
    assert scan(lab, OUTSIDER, HEAD)["open"] == {"22": "ssh"}
    assert set(scan(lab, WORKER, HEAD)["open"]) == {"22"}, "beside the tunnel a peer is an outsider"


def test_status_and_metrics_say_how_the_tunnel_is(lab: Lab, encrypted: Play) -> None:
    (replica,) = lab.status()["replicas"]
    assert {host["tunnel"] for host in replica["hosts"]} == {"on"}
    for host in replica["hosts"]:
        ((peer, age),) = host["tunnel_handshakes"].items()
        assert peer == OTHER[host["host"]]
        assert 0 <= age < 180, "Ray's heartbeats have WireGuard shake hands every 2 minutes"
    play = lab.play("playbooks/metrics.yml", extra=WANTED)
    assert play.rc == 0, play.explained()
    lab.on(HEAD, "systemctl start lockstep-metrics.service")
    text = lab.on(HEAD, f"cat {METRICS}")
    assert re.search(r"^lockstep_tunnel_ok\{.*\} 1$", text, re.MULTILINE)
    assert re.search(rf'^lockstep_tunnel_handshake_timestamp_seconds\{{.*peer="{WORKER}"\}} 1\d+$', text, re.MULTILINE)
    lab.on(WORKER, "wg set lockstep0 peer $(wg show lockstep0 peers) remove")
    try:
        (replica,) = lab.status()["replicas"]
        assert replica["hosts"][1]["tunnel"] == "wrong: lockstep0 knows other hosts than its configuration"
    finally:
        lab.on(WORKER, "wg-quick strip lockstep0 > /run/lockstep0.stripped; wg syncconf lockstep0 /run/lockstep0.stripped; "
                       "wg set lockstep0 private-key /etc/wireguard/lockstep0.key; rm /run/lockstep0.stripped")  # fmt: skip
    assert {host["tunnel"] for host in lab.status()["replicas"][0]["hosts"]} == {"on"}


def test_without_the_tunnel_there_is_silence_and_a_run_brings_it_back(lab: Lab, encrypted: Play) -> None:
    count(lab)
    lab.on(WORKER, "kill $(pgrep -x wireguard-go)")
    eventually("the interface is gone", lambda: "lockstep0" not in lab.on(WORKER, "ip -o link"), 10)
    assert "default" in lab.on(WORKER, "ip route"), "without another way there is nothing to be closed"
    asked = "timeout 3 bash -c 'echo x >/dev/tcp/198.18.0.1/6379' && echo reached || echo not reached"
    assert lab.on(WORKER, asked) == "not reached"
    dropped = lab.on(WORKER, "nft list chain inet lockstep output")
    assert "packets 0" not in dropped, dropped
    assert counted(lab, "clear") == {HEAD: 0, WORKER: 0}
    play = lab.play(extra=WANTED)
    assert play.rc == 0, play.explained()
    assert "tunnel: lockstep0 is not up" in play.text
    assert answers(lab)
    assert counted(lab, "clear") == {HEAD: 0, WORKER: 0}


def test_no_tunnel_no_ray(lab: Lab, encrypted: Play) -> None:
    lab.on(WORKER, "systemctl stop wg-quick@lockstep0")
    assert lab.on(WORKER, "systemctl is-active lockstep-ray", check=False) != "active"
    lab.on(WORKER, "mv /etc/wireguard/lockstep0.conf /root/")
    try:
        lab.on(WORKER, "systemctl start lockstep-ray", check=False)
        assert lab.on(WORKER, "systemctl is-active lockstep-ray", check=False) != "active"
    finally:
        lab.on(WORKER, "mv /root/lockstep0.conf /etc/wireguard/; systemctl start lockstep-ray")
    eventually("the replica serves again", lambda: bool(lab.status()["replicas"][0]["serving"]), 600)


def test_a_replica_that_leaves_takes_its_tunnel_along_and_comes_back(lab: Lab, encrypted: Play) -> None:
    gone = lab.play("playbooks/remove.yml", "--limit", "replica_a", extra=WANTED)
    assert gone.rc == 0, gone.explained()
    for host in OTHER:
        assert lab.on(host, LEFT, check=False) == ""
    play = lab.play(extra=WANTED)
    assert play.rc == 0, play.explained()
    assert answers(lab)


def test_it_is_turned_off_by_a_wave(lab: Lab, encrypted: Play) -> None:
    count(lab)
    play = lab.play(extra={**WANTED, "ray_node_encryption": "none"})
    assert play.rc == 0, play.explained()
    assert answers(lab)
    assert min(counted(lab, "clear").values()) > 1_000_000
    for host in OTHER:
        assert "lockstep0" not in lab.on(
            host, "ip -o link; cat /etc/hosts; ls /etc/lockstep /etc/systemd/system/lockstep-ray.service.d"
        )
