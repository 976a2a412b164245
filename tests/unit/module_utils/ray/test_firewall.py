"""The packet filter's rules, and that nftables takes them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.ray import firewall, ports
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.ports import RayPorts

IDENTITY = {"host": "a1", "peers": {"a1": "10.0.0.11", "a2": "10.0.0.12", "a3": "fd00::3"}}
RULES = firewall.rules(IDENTITY, RayPorts())


def test_peers_of_both_families_may_come():
    for line in ("ip saddr 10.0.0.11 accept", "ip saddr 10.0.0.12 accept", "ip6 saddr fd00::3 accept"):
        assert f"    {line}\n" in RULES


def test_every_port_of_ray_is_filtered_and_no_other():
    assert firewall.port_set(RayPorts(gcs=7000)) == (
        "6380, 6381, 6382, 6383, 6384, 6385, 6386, 6387, 6388, 7000, 20000-20999, 29600-29699"
    )


def test_filtered_ports_are_all_that_ray_has():
    """A port that is added to Ray's must be filtered too, but for the dashboard's, which is on loopback."""
    import dataclasses

    chosen = dataclasses.asdict(RayPorts())
    filtered = {port for some in ports.filtered(RayPorts()) for port in some}
    assert set(chosen.values()) - filtered == {chosen["dashboard"]}


def test_others_are_dropped_last():
    assert RULES.rstrip().splitlines()[-3].strip() == "counter drop"


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed here; the testbed loads the rules")
def test_nftables_takes_them():
    checked = subprocess.run(["nft", "--check", "-f", "-"], input=RULES, capture_output=True, text=True)
    if "Operation not permitted" in checked.stderr:
        pytest.skip("nft needs root here; the testbed loads the rules")
    assert checked.returncode == 0, checked.stderr
