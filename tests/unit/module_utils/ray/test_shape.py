"""Shapes: what is asked for, and what no replica can have."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.ray.shape import Shape, ShapeError, impossible, shape_of

PEERS = {"a1": "10.0.0.11", "a2": "10.0.0.12"}
IDENTITY = {
    "host": "a1",
    "replica": "replica_a",
    "gpus": 8,
    "peers": PEERS,
    "head": {"host": "a1", "address": "10.0.0.11"},
}


@pytest.mark.parametrize(
    ("desired", "reason"),
    [
        ({}, ""),
        ({"hosts": 3}, "3 hosts are required, the replica has 2: a1, a2"),
        ({"gpus_per_host": 16}, "16 GPUs per host are required, the inventory declares 8"),
        ({"gpus": 17}, "17 GPUs are required, the inventory declares 8 on 2 hosts"),
    ],
)
def test_more_than_the_inventory_has(desired, reason):
    assert impossible(shape_of(IDENTITY, desired)) == reason


@pytest.mark.parametrize(
    ("desired", "reason"),
    [({"gpu": 8}, "unknown key: gpu"), ({"members": ["a9"]}, "a9: not in replica replica_a")],
)
def test_invalid_shape(desired, reason):
    with pytest.raises(ShapeError, match=reason):
        shape_of(IDENTITY, desired)


def test_shape_defaults_to_the_whole_replica():
    shape = Shape(PEERS, 2, gpus_per_host=8, gpus_declared=8, head="10.0.0.11", head_host="a1")
    assert shape_of(IDENTITY) == shape
    assert shape_of(IDENTITY).gpus_required == 16


def test_a_shape_that_says_no_more_asks_for_one_gpu_of_every_host_now():
    shape = Shape(PEERS, 2)
    assert (shape.gpus_per_host, shape.free, shape.stable_for) == (1, False, 0.0)
    undeclared = {name: value for name, value in IDENTITY.items() if name != "gpus"}
    assert shape_of(undeclared).gpus_per_host == 1
