from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import whole_replicas

REPLICAS = {"ra": ["a1", "a2", "a3"], "rb": ["b1", "b2"], "rc": ["c1"]}


@pytest.mark.parametrize(
    ("asked", "hosts", "line"),
    [
        ([], [], ""),
        (["router1"], [], ""),
        (["a1", "a2", "a3"], [], ""),
        (["a1", "a2", "a3", "b1", "b2", "c1", "router1"], [], ""),
        (["c1"], [], ""),
        (["a2"], ["a2", "a1", "a3"], "ra is looked at as a whole: --limit leaves out a1, a3"),
        (["a1", "a2", "a3", "b2"], ["a1", "a2", "a3", "b2", "b1"], "rb is looked at as a whole: --limit leaves out b1"),
        (
            ["router1", "b1", "a3"],
            ["router1", "b1", "a3", "a1", "a2", "b2"],
            "ra, rb are looked at as a whole: --limit leaves out a1, a2, b2",
        ),
    ],
)
def test_a_part_of_a_replica_becomes_the_whole(asked: list[str], hosts: list[str], line: str) -> None:
    assert whole_replicas.widened(REPLICAS, asked) == (hosts, line)
