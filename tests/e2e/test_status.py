"""What people and programs get to see of a cluster: its status, as JSON and as a table."""

from __future__ import annotations

import pytest

from tests.e2e.lab import Lab, Play

HEAD, WORKER = "a1", "a2"


@pytest.fixture(scope="module")
def serving(lab: Lab) -> Play:
    play = lab.play()
    assert play.rc == 0, play.explained()
    return play


def test_status_of_a_cluster_that_serves(lab: Lab, serving: Play) -> None:
    (replica,) = lab.status()["replicas"]
    assert replica["serving"], replica
    assert replica["engine"] == "serving"
    assert replica["stamp"] == "valid"
    assert replica["gpus"] == {"total": 2, "used": 2, "missing": 0}
    assert [(host["host"], host["role"], host["ray"], host["stamp"]) for host in replica["hosts"]] == [
        (HEAD, "head", "joined", "valid"),
        (WORKER, "worker", "joined", "valid"),
    ]
    table = lab.play("playbooks/status.yml")
    assert "replica_a: serving" in table.text
    assert table.changed() == {}
