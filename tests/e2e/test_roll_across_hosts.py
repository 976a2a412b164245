"""A driver whose graphs hang only when several hosts take part: the canary meets it, is restored, and serves again."""

from __future__ import annotations

import pytest

from tests.e2e.lab import Lab, difference
from tests.e2e.rolls import REPLICAS, nothing_lost, other, roll, serving, to, verified

pytestmark = pytest.mark.long

CANARY = ("a1", "a2")
# replica_a has a worker, which inventories/testbed/pair leaves idle.
TWO_HOSTS = """
all:
  children:
    lockstep:
      children:
        replica_a:
          vars:
            vllm_server_tensor_parallel_size: 2
          hosts:
            a2:
              ansible_host: "{{ testbed_prefix }}.12"
              ray_node_role: worker
              testbed_state: TESTBED_STATE
"""
GATE_DEADLINE = 60
"""Seconds that the gates across hosts may take; what hangs is ended then."""


def test_graphs_that_hang_across_hosts_stop_at_the_canary(pair: Lab) -> None:
    old = serving(pair)["a1"]
    new = other(old)
    two_hosts = TWO_HOSTS.replace("TESTBED_STATE", str(pair.state))
    grown = pair.play(extra=to(old), overlay=two_hosts)
    assert grown.rc == 0, grown.explained()
    for host in CANARY:
        verified(pair, host, old)
        pair.testbed("fault", host, "replay_hangs_across_hosts", "--when-driver", new)
    untouched = pair.snapshot(["b1"])
    try:
        rolled = roll(pair, new, extra={"admission_replica_gate_deadline": GATE_DEADLINE}, overlay=two_hosts)
    finally:
        for host in CANARY:
            pair.testbed("fault", host, "--clear")
    assert rolled.play.rc != 0, rolled.play.explained()
    nothing_lost(rolled)
    assert difference(untouched, pair.snapshot(["b1"])) == {}, "the other replica was touched"
    for host in CANARY:
        verified(pair, host, old)
    assert rolled.log.rotation == set(REPLICAS)
    ((replica, out, back),) = rolled.log.outages(rolled.load.ended)
    assert replica == "replica_a"
    assert back - out < 10 * GATE_DEADLINE, "the canary was away for longer than two rolls and a deadline take"
    report = rolled.report()
    reported = [message for message in rolled.play.failures() if message.startswith("Wave 1 of 2 failed")]
    assert reported, rolled.play.explained()
    for message in reported:
        for fragment in ("graph gate: timeout", "replay", *CANARY, old, "Next: ", "evidence: "):
            assert fragment in message, f"its closing message does not name {fragment!r}: {message}"
    for fragment in ("graph", "replay", old, new, *CANARY):
        assert fragment in report, f"the report does not name {fragment!r}"
