"""A replica leaves and comes back, and a host joins one and leaves it, under load: nothing is lost, nothing of Lockstep stays.

Begins and ends with both replicas serving.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.e2e.lab import Lab
from tests.e2e.rolls import HEADS, declaring, log_of, nothing_lost, roll, serving, traffic, verified
from tests.e2e.test_roll_across_hosts import TWO_HOSTS

pytestmark = pytest.mark.long

LEFT = r"""
ls -d /etc/lockstep /opt/lockstep /var/lib/lockstep /run/lockstep* 2>/dev/null | grep -v lockstep-testbed
ls -d /etc/systemd/system/lockstep-* 2>/dev/null | grep -v lockstep-testbed
ls -d /etc/apt/preferences.d/lockstep-* /etc/apt/sources.list.d/lockstep-* /etc/apt/keyrings/lockstep-* 2>/dev/null
getent passwd lockstep; getent group lockstep
systemctl list-units --all --no-legend --plain 'lockstep-*' | grep -v lockstep-testbed
nft list table inet lockstep 2>/dev/null
apt-mark showhold
pgrep -a 'ray|vllm'
grep -n Lockstep /etc/hosts
true
"""


def test_a_replica_leaves_and_comes_back_and_nobody_notices(pair: Lab) -> None:
    versions = serving(pair)
    refused = pair.play("playbooks/remove.yml")
    assert refused.rc != 0
    assert "was given all of them; nothing was done" in refused.text, refused.explained()
    with traffic(pair) as load:
        gone = pair.play("playbooks/remove.yml", "--limit", "replica_b")
        time.sleep(10)
        left = pair.on("b1", LEFT)
        driver = pair.on("b1", "cat /sys/module/nvidia/version")
        again = pair.play("playbooks/remove.yml", "--limit", "replica_b")
        back = pair.play(overlay=declaring(versions))
        time.sleep(10)
    log = log_of(pair, load)
    print(load.summary())
    assert gone.rc == 0, gone.explained()
    assert left == "", left
    assert driver == versions["b1"], "the driver is left as it is"
    assert again.rc == 0, again.explained()
    assert back.rc == 0, back.explained()
    assert load.failed == ()
    assert log.lowest() >= 1
    for host in HEADS:
        verified(pair, host, versions[host])


def test_a_host_joins_a_replica_and_leaves_it_and_nobody_notices(pair: Lab) -> None:
    """docs/how-to/add-and-remove.md: a worker and larger sizes; then one host less, and a replica that comes back smaller."""
    version = serving(pair)["a1"]
    replica_stamp = "/var/lib/lockstep/stamp/replica.json"
    larger = TWO_HOSTS.replace("TESTBED_STATE", str(pair.state))

    grown = roll(pair, version, playbook="site.yml", overlay=larger)
    assert grown.play.rc == 0, grown.play.explained()
    nothing_lost(grown)
    assert {replica for replica, *_times in grown.log.outages(grown.load.ended)} == {"replica_a"}
    stamp = pair.record("a1", replica_stamp)
    assert stamp
    assert set(stamp["hosts"]) == {"a1", "a2"}
    for host in (*HEADS, "a2"):
        verified(pair, host, version)

    with traffic(pair) as load:
        gone = pair.play("playbooks/remove.yml", "--limit", "replica_a", overlay=larger)
        left = pair.on("a2", LEFT)
        smaller = pair.play(overlay=declaring(dict.fromkeys(HEADS, version)))
        time.sleep(10)
    log = log_of(pair, load)
    print(load.summary())
    assert gone.rc == 0, gone.explained()
    assert left == "", left
    assert smaller.rc == 0, smaller.explained()
    assert load.failed == ()
    assert log.lowest() >= 1
    stamp = pair.record("a1", replica_stamp)
    assert stamp
    assert set(stamp["hosts"]) == {"a1"}
    for host in HEADS:
        verified(pair, host, version)


@contextlib.contextmanager
def undeclared(pair: Lab) -> Iterator[Lab]:
    """The same testbed by an inventory in which b1 is a host of no replica."""
    folder = pair.inventory.with_name(f"undeclared-{os.getpid()}")
    shutil.copytree(pair.inventory, folder)
    try:
        hosts = yaml.safe_load((folder / "hosts.yml").read_text())
        groups = hosts["all"]["children"]
        gone = groups["lockstep"]["children"].pop("replica_b")["hosts"]["b1"]
        groups["spares"] = {"hosts": {"b1": {"ansible_host": gone["ansible_host"]}}}
        (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
        yield dataclasses.replace(pair, inventory=folder)
    finally:
        shutil.rmtree(folder)


def test_a_replica_that_only_left_the_inventory_is_named_and_removed(pair: Lab) -> None:
    versions = serving(pair)
    assert pair.status()["unexpected"] == []
    with undeclared(pair) as lab:
        seen = {each["code"]: each for each in lab.status({"status_others": True})["unexpected"]}
        warned = lab.play("playbooks/preflight.yml")
        removed = lab.play("playbooks/remove.yml", "--limit", "b1")
        left = pair.on("b1", LEFT)
        after = {each["code"] for each in lab.status({"status_others": True})["unexpected"]}
        forgotten = lab.play()
        last = lab.status({"status_others": True})["unexpected"]
    back = pair.play(overlay=declaring(versions))
    assert set(seen) == {"router_server", "no_replica"}
    assert seen["router_server"]["serving"]
    assert seen["router_server"]["next"] == "ansible-playbook playbooks/remove.yml --limit replica_b"
    assert seen["no_replica"]["next"] == "ansible-playbook playbooks/remove.yml --limit b1"
    assert "HAProxy on router1 has replica_b" in warned.text, warned.explained()
    assert removed.rc == 0, removed.explained()
    assert left == "", left
    assert after == {"router_server"}, "the router has it, and sends it nothing"
    assert forgotten.rc == 0, forgotten.explained()
    assert last == []
    assert back.rc == 0, back.explained()
    for host in HEADS:
        verified(pair, host, versions[host])


def test_a_whole_cluster_is_uninstalled(pair: Lab) -> None:
    """docs/how-to/uninstall.md. Without the floor that it lowers, nothing is done."""
    versions = serving(pair)
    refused = pair.play("playbooks/remove.yml", "--limit", "lockstep")
    assert refused.rc != 0
    assert "would leave 0, and the capacity floor is 1; nothing was done" in " ".join(refused.text.split())
    gone = pair.play("playbooks/remove.yml", "--limit", "lockstep", extra={"rollout_capacity_floor": 0})
    assert gone.rc == 0, gone.explained()
    assert {host: pair.on(host, LEFT) for host in HEADS} == dict.fromkeys(HEADS, "")
    back = pair.play(overlay=declaring(versions))
    assert back.rc == 0, back.explained()
    for host in HEADS:
        verified(pair, host, versions[host])
