"""What the engine supervisor asks Ray: who is there, are they who they should be, is a GPU still held."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Collection, Mapping

from ..core.host_record import HostRecord
from ..ray import stacks
from ..ray import wait as ray_wait
from ..ray.assessment import Observation, assess
from ..ray.gcs import Cluster, Table, answers, token
from ..ray.shape import shape_of
from ..ray.stacks import Answer
from .layouts import Layout


@dataclasses.dataclass(frozen=True)
class Members:
    """The live hosts of the replica's Ray cluster.

    Attributes:
        known: whether the head answered; when not, the rest is empty.
        fingerprints: host to the fingerprint label it joined with.
        gpus: GPUs of all of them.
        free: GPUs that nobody holds.
        nodes: Ray's node ids, to tell a host that went and came back from one that stayed.
        endpoints: host to address and port of its node manager.
    """

    known: bool
    fingerprints: dict[str, str] = dataclasses.field(default_factory=dict)
    gpus: int = 0
    free: int = 0
    nodes: frozenset[str] = frozenset()
    endpoints: Mapping[str, tuple[str, int]] = dataclasses.field(default_factory=dict)


def members(table: Table) -> Members:
    """Who can work: dead and draining nodes are not counted, and of a host that Ray counts twice, as it does for some
    seconds after its Ray was started anew, the newest alone."""
    if table.head != "up":
        return Members(False)
    there = [node for node in table.nodes if node.alive and not node.draining]
    live = {node.host or node.address: node for node in sorted(there, key=lambda node: node.started)}
    return Members(
        True,
        {host: node.fingerprint or "none" for host, node in live.items()},
        int(sum(node.gpus for node in live.values())),
        int(sum(node.free.get("GPU", 0.0) for node in live.values())),
        frozenset(node.node_id for node in live.values()),
        {host: (node.address, node.port) for host, node in live.items()},
    )


def lost(before: Members, now: Members) -> list[str]:
    """Hosts that went since ``before``, also when they came back meanwhile; the head's silence loses nobody."""
    if not now.known or before.nodes <= now.nodes:
        return []
    gone = set(before.fingerprints) - set(now.fingerprints)
    return sorted(gone) if gone else ["a host that left and came back"]


class ReplicaCluster:
    """The Ray cluster of this replica.

    Args:
        host: this head's host.json.
    """

    def __init__(self, host: HostRecord) -> None:
        self._host = host
        self._ray = Cluster(host["head"]["address"], token=token())

    def members(self) -> Members:
        """Who is there now; costs about a millisecond."""
        return members(self._ray.table())

    def at_work(self) -> Members | None:
        """Those of them whose GPUs are held, which leaves out spares; None where Ray knows of none."""
        table = self._ray.table()
        held = tuple(node for node in table.nodes if node.alive and node.free.get("GPU", 0.0) < node.gpus)
        return members(dataclasses.replace(table, nodes=held)) if held else None

    def lost(self, before: Members) -> list[str]:
        """Who of ``before`` an engine that has ended has lost. Ray sees a death after 16 to 65 s: whoever accepts no
        connection is lost already, and so is everybody where the head itself is silent."""
        table = self._ray.table()
        if table.head != "up":
            return ["the head's Ray"]
        gone = lost(before, members(table))
        if gone or not before.endpoints:
            return gone
        with concurrent.futures.ThreadPoolExecutor(len(before.endpoints)) as pool:
            answered = pool.map(lambda endpoint: answers(*endpoint), before.endpoints.values())
            return sorted(host for host, answer in zip(before.endpoints, answered, strict=True) if not answer)

    def stacks(self, hosts: Collection[str], deadline: float) -> dict[str, Answer]:
        """What each of ``hosts`` sees of its own ranks, as far as they answer within ``deadline`` seconds."""
        head = Cluster(self._host["head"]["address"], token=token(), timeout=1.0)
        try:
            return stacks.ask(head, hosts, deadline)
        finally:
            head.close()

    def wait(self, layout: Layout, deadline: float, report: Callable[[str], None]) -> ray_wait.Waited:
        """Wait until the GPUs of ``layout`` are there and nobody holds them.

        Args:
            deadline: seconds.
            report: called with who is missing and why, each time that it changes.
        """
        hosts, each = layout.on(int(self._host["gpus"]))
        required = {"hosts": hosts, "gpus_per_host": each, "gpus": layout.gpus, "free": True}
        shape = shape_of(self._host, required)

        def progress(seen: Observation) -> None:
            assessment = assess(shape, seen)
            if not assessment.ready:
                report(f"{layout.name}: {assessment}")

        return ray_wait.wait(shape, deadline=deadline, progress=progress)
