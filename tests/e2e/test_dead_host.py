"""Another machine takes a dead host's name and address, bare or with its disk and all records; another card its GPU's place; or
a host's records are rubbish and it is reset: none serves before its gates passed.

Needs a replica that serves, and leaves it serving.
"""

from __future__ import annotations

import pytest

from tests.e2e.lab import Lab, eventually
from tests.e2e.test_site import HEAD, WORKER, answers

pytestmark = pytest.mark.long

STAMP = "/var/lib/lockstep/stamp/host.json"


def decided_after_a_reboot(lab: Lab) -> str:
    """The worker boots; what its Ray unit says once that does not start."""
    lab.testbed("reboot", WORKER, "--wait")
    eventually(
        "the host's Ray unit has decided",
        lambda: lab.on(WORKER, "systemctl is-active lockstep-ray", check=False) not in ("activating", "active"),
        60,
    )
    return lab.on(WORKER, "journalctl -b -u lockstep-ray --no-pager -o cat")


def test_a_machine_that_takes_a_dead_hosts_name_passes_its_gates_first(lab: Lab) -> None:
    brought_up = lab.play()
    assert brought_up.rc == 0, brought_up.explained()
    before, replica = lab.record(WORKER, STAMP), lab.record(HEAD, "/var/lib/lockstep/stamp/replica.json")
    assert before
    assert replica
    lab.on(WORKER, "tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id")
    journal = decided_after_a_reboot(lab)
    assert "is void: machine " in journal, journal
    (shown,) = lab.status()["replicas"]
    assert [host["stamp"].partition(":")[0] for host in shown["hosts"]] == ["valid", "void"], shown
    assert shown["stamp"].startswith("void"), shown
    play = lab.play("site.yml", "--limit", "replica_a")
    assert play.rc == 0, play.explained()
    after, of_both = lab.record(WORKER, STAMP), lab.record(HEAD, "/var/lib/lockstep/stamp/replica.json")
    assert after
    assert of_both
    assert after["fingerprint"]["machine"] != before["fingerprint"]["machine"]
    assert of_both["hosts"][HEAD] == replica["hosts"][HEAD]
    assert of_both["hosts"][WORKER] != replica["hosts"][WORKER]
    assert of_both["at"] > replica["at"], "the gates across the hosts ran again"
    assert answers(lab)


def test_a_bare_machine_takes_a_dead_hosts_place(lab: Lab) -> None:
    """docs/how-to/replace-a-dead-host.md; the testbed takes the new machine's host key into known_hosts, as its owner would."""
    brought_up = lab.play()
    assert brought_up.rc == 0, brought_up.explained()
    before, replica = lab.record(WORKER, STAMP), lab.record(HEAD, "/var/lib/lockstep/stamp/replica.json")
    assert before
    assert replica
    lab.testbed("kill", WORKER)
    lab.testbed("replace", WORKER)
    (shown,) = lab.status()["replicas"]
    assert [host["stamp"].partition(":")[0] for host in shown["hosts"]] == ["valid", "none"], shown
    planned = lab.play("playbooks/preflight.yml", "--limit", "replica_a")
    assert planned.rc == 0, planned.explained()
    play = lab.play("site.yml", "--limit", "replica_a")
    assert play.rc == 0, play.explained()
    after, of_both = lab.record(WORKER, STAMP), lab.record(HEAD, "/var/lib/lockstep/stamp/replica.json")
    assert after
    assert of_both
    assert after["fingerprint"]["machine"] != before["fingerprint"]["machine"]
    assert of_both["hosts"][HEAD] == replica["hosts"][HEAD]
    assert of_both["hosts"][WORKER] != replica["hosts"][WORKER]
    assert of_both["at"] > replica["at"], "the gates across the hosts ran again"
    assert answers(lab)


def test_a_host_whose_card_was_changed_passes_its_gates_first(lab: Lab) -> None:
    brought_up = lab.play()
    assert brought_up.rc == 0, brought_up.explained()
    before = lab.record(WORKER, STAMP)
    assert before
    lab.testbed("fault", WORKER, "gpu_replaced")
    journal = decided_after_a_reboot(lab)
    assert f"is void: gpus {before['fingerprint']['gpus']} → GPU-" in journal, journal
    (shown,) = lab.status()["replicas"]
    worker = next(host for host in shown["hosts"] if host["host"] == WORKER)
    assert worker["stamp"].startswith(f"void: gpus {before['fingerprint']['gpus']} → GPU-"), shown
    play = lab.play("site.yml", "--limit", "replica_a")
    assert play.rc == 0, play.explained()
    after = lab.record(WORKER, STAMP)
    assert after
    assert after["fingerprint"] == {**before["fingerprint"], "gpus": after["fingerprint"]["gpus"]}
    assert after["fingerprint"]["gpus"] != before["fingerprint"]["gpus"]
    assert answers(lab)


RUBBISH = r"""
printf '{"host": ' >/etc/lockstep/host.json
printf x >/var/lib/lockstep/stamp/host.json
printf '[]' >/var/lib/lockstep/driver.json
rm -f /opt/lockstep/runtime/current
rm -rf /opt/lockstep/lib/lockstep/core
"""


def test_a_host_that_nobody_trusts_is_reset(lab: Lab) -> None:
    """docs/how-to/reset-a-host.md: both commands, where records and library of a host cannot be read any more."""
    brought_up = lab.play()
    assert brought_up.rc == 0, brought_up.explained()
    before = lab.record(HEAD, "/var/lib/lockstep/stamp/replica.json")
    assert before
    lab.on(WORKER, RUBBISH)
    removed = lab.play("playbooks/remove.yml", "--limit", "replica_a")
    assert removed.rc == 0, removed.explained()
    for host in (HEAD, WORKER):
        assert lab.on(host, "ls -d /etc/lockstep /opt/lockstep /var/lib/lockstep 2>/dev/null", check=False) == ""
        assert lab.on(host, "cat /sys/module/nvidia/version"), "the driver stays"
    back = lab.play("site.yml", "--limit", "replica_a")
    assert back.rc == 0, back.explained()
    after = lab.record(HEAD, "/var/lib/lockstep/stamp/replica.json")
    assert after
    assert after["at"] > before["at"], "the gates ran again"
    assert lab.record(WORKER, STAMP)
    assert answers(lab)
