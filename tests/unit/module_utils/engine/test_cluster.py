"""Who an engine has lost, by Ray's table and by who accepts connections."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import cluster as engine_cluster
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.gcs import Node, Table


@contextlib.contextmanager
def endpoint() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def node(host: str, port: int, start: int = 1, alive: bool = True, free: float = 0.0) -> Node:
    has, left = {"GPU": 1.0}, {"GPU": free} if alive else {}
    return Node(f"{host}-{start}", "127.0.0.1", port, host, alive=alive, started=start, resources=has, free=left)


def test_a_host_that_ray_counts_twice_counts_once() -> None:
    """Seen after a raylet was killed: the old node was in the table for seconds beside the new one, then was lost."""
    both = engine_cluster.members(Table("up", (node("a1", 1), node("a2", 2, start=2), node("a2", 2))))
    assert (both.gpus, both.nodes) == (2, {"a1-1", "a2-2"})
    later = engine_cluster.members(Table("up", (node("a1", 1), node("a2", 2, start=2), node("a2", 2, alive=False))))
    assert engine_cluster.lost(both, later) == []


class Ray:
    def __init__(self, table: Table) -> None:
        self._table = table

    def table(self) -> Table:
        return self._table


@pytest.mark.parametrize(
    ("now", "lost"),
    [
        (lambda a1, a2: Table("up", (node("a1", a1), node("a2", a2))), []),
        (lambda a1, a2: Table("up", (node("a1", a1), node("a2", a2, alive=False))), ["a2"]),
        (lambda a1, a2: Table("up", (node("a1", a1), node("a2", a2, start=2))), ["a host that left and came back"]),
        (lambda a1, a2: Table("down"), ["the head's Ray"]),
    ],
    ids=["nobody", "dead", "came_back", "head"],
)  # fmt: skip
def test_lost_by_the_table(now: object, lost: list[str]) -> None:
    with endpoint() as a1, endpoint() as a2:
        before = engine_cluster.members(Table("up", (node("a1", a1), node("a2", a2))))
        cluster = engine_cluster.ReplicaCluster.__new__(engine_cluster.ReplicaCluster)
        cluster._ray = Ray(now(a1, a2))  # type: ignore[assignment, operator]
        assert cluster.lost(before) == lost


def test_a_host_that_ray_still_counts_but_that_answers_no_more_is_lost() -> None:
    with endpoint() as a1:
        with endpoint() as a2:
            table = Table("up", (node("a1", a1), node("a2", a2)))
        cluster = engine_cluster.ReplicaCluster.__new__(engine_cluster.ReplicaCluster)
        cluster._ray = Ray(table)  # type: ignore[assignment]
        assert cluster.lost(engine_cluster.members(table)) == ["a2"]


def test_an_engine_loses_nothing_with_a_spare() -> None:
    with endpoint() as a1, endpoint() as a2:
        cluster = engine_cluster.ReplicaCluster.__new__(engine_cluster.ReplicaCluster)
        engine = (node("a1", a1), node("a2", a2), node("a4", 1, alive=False))
        cluster._ray = Ray(Table("up", (*engine, node("a3", 1, free=1.0))))  # type: ignore[assignment]
        before = cluster.at_work()
        assert before is not None
        assert set(before.fingerprints) == {"a1", "a2"}
        cluster._ray = Ray(Table("up", (*engine, node("a3", 1, alive=False))))  # type: ignore[assignment]
        assert cluster.lost(before) == []
        cluster._ray = Ray(Table("down"))  # type: ignore[assignment]
        assert cluster.at_work() is None
