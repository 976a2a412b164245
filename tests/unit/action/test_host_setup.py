"""Where a host belongs when the inventory has no group ``lockstep``."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.lockstep.vllm.plugins.action.host_setup import stated_replica
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.topology import Replica

PEERS = {"a1": "10.0.0.1", "a2": "10.0.0.2"}


def test_a_host_by_itself_is_its_own_head() -> None:
    assert stated_replica("a1", "10.0.0.1", {}, None) == Replica("a1", "a1", (), {"a1": "10.0.0.1"})


def test_peers_and_head_make_the_replica() -> None:
    assert stated_replica("a1", "10.9.9.9", PEERS, "a2") == Replica("a2", "a2", ("a1",), PEERS)


@pytest.mark.parametrize(
    ("host", "head", "message"),
    [
        ("a3", "a1", r"a3 is not in gpu_host_peers \(a1, a2\)"),
        ("a1", None, "gpu_host_head is not set, and has to be one of a1, a2"),
        ("a1", "b1", "gpu_host_head is b1, and has to be one of a1, a2"),
    ],
)
def test_what_cannot_mean_a_replica_is_refused(host: str, head: str | None, message: str) -> None:
    with pytest.raises(AnsibleActionFail, match=message):
        stated_replica(host, None, PEERS, head)
