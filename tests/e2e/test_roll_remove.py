"""A replica leaves and comes back, under load: nothing is lost, and nothing of Lockstep stays on its host.

Begins and ends with both replicas serving.
"""

from __future__ import annotations

import time

import pytest

from tests.e2e.lab import Lab
from tests.e2e.rolls import HEADS, declaring, log_of, serving, traffic, verified

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
