"""Waiting until a Ray cluster has the shape that an engine needs, and reporting meanwhile who is missing and why.

Entry points: the module ``lockstep.vllm.ray_wait_for_resources``, on a host ``python -m lockstep.ray.wait``, and
``wait`` itself in the engine supervisor. What is decided is decided in ``assessment``.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..core import host_record, polling, records
from ..core.codes import as_json
from . import gcs, peer_status
from .assessment import Missing, Observation, assess, evaluate, row
from .codes import WaitCode
from .gcs import Node, Table
from .peer_status import HostStatus
from .shape import Shape, ShapeError, impossible, shape_of

POLL_INTERVAL = 0.1
"""Seconds between two samples; one costs about 1 ms."""
ASK_INTERVAL = 5.0
"""Seconds between two questions to the hosts that are missing."""
HOPELESS_FOR = 2.0
"""Seconds for which waiting must be hopeless before it ends: a start or a reboot passes through such states."""
DEADLINE = 1800.0


@dataclasses.dataclass(frozen=True)
class Waited:
    """How a wait ended.

    Attributes:
        ready: whether the shape was there, and stable.
        reason: why not, naming hosts; empty when ready.
        seconds: how long it took.
        nodes: that counted at the end.
        missing: hosts that did not, and why.
    """

    ready: bool
    code: WaitCode
    reason: str
    seconds: float
    nodes: tuple[Node, ...]
    missing: tuple[Missing, ...]

    def as_dict(self) -> dict[str, Any]:
        missing = [{**as_json(one), "final": one.final} for one in self.missing]
        return {**as_json(self), "seconds": round(self.seconds, 3), "missing": missing}


def wait(
    shape: Shape,
    *,
    deadline: float = DEADLINE,
    progress: Callable[[Observation], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Waited:
    """Wait until the shape is there and stable.

    It ends within 0.2 s of the resources' existence, early when waiting cannot help, and at the deadline in any case.
    It survives restarts of the head.

    Args:
        shape: what must be there.
        deadline: seconds.
        progress: called each time that who is missing, or why, has changed.
    """
    excess = impossible(shape)
    if excess:
        return Waited(False, WaitCode.IMPOSSIBLE, excess, 0.0, (), ())
    observer = _Observer(shape)
    last: list[str] = []

    def report(seen: Observation, evaluation: polling.Evaluation) -> None:
        if progress is not None and last != [evaluation.reason]:
            last[:] = [evaluation.reason]
            progress(seen)

    try:
        ended = polling.poll(
            observer.sample,
            lambda seen: evaluate(shape, seen),
            deadline=deadline,
            interval=POLL_INTERVAL,
            stable_for=shape.stable_for,
            hopeless_for=HOPELESS_FOR,
            progress=report,
            clock=clock,
            sleep=sleep,
        )
    finally:
        observer.close()
    final = assess(shape, ended.last)
    return Waited(ended.ready, WaitCode(ended.code), ended.reason, ended.seconds, final.counted, final.missing)


class _Observer:
    """Samples the head's table; asks the hosts that it lacks, in threads so that none can slow the sampling."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._cluster = gcs.Cluster(shape.head, shape.port, gcs.token())
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=16)
        self._reported: dict[str, HostStatus] = {}
        self._asked: dict[str, float] = {}
        self._asking: dict[str, concurrent.futures.Future[HostStatus]] = {}

    def sample(self) -> Observation:
        table = self._cluster.table()
        self._collect()
        seen = Observation(table, dict(self._reported))
        assessment = assess(self._shape, seen)
        self._ask({one.host for one in assessment.missing} | self._head_if_down(table))
        if not assessment.ready:
            return seen
        rows = (row(self._shape, table, host) for host in self._shape.members)
        return dataclasses.replace(seen, silent=self._silent(node for node in rows if node))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._cluster.close()

    def _head_if_down(self, table: Table) -> set[str]:
        return {self._shape.head_host} if table.head != "up" and self._shape.head_host else set()

    def _silent(self, nodes: Iterable[Node]) -> frozenset[str]:
        """A node that was just killed stays in Ray's table for up to a minute: connect before believing."""
        nodes = list(nodes)
        answered = self._pool.map(lambda node: gcs.answers(node.address, node.port), nodes)
        return frozenset(str(node.host) for node, answer in zip(nodes, answered, strict=True) if not answer)

    def _collect(self) -> None:
        for host, future in list(self._asking.items()):
            if future.done():
                self._reported[host] = self._asking.pop(host).result()

    def _ask(self, hosts: set[str]) -> None:
        moment = time.monotonic()
        for host in set(self._reported) - hosts:
            self._reported.pop(host)
            self._asked.pop(host, None)
        for host in hosts:
            address = self._shape.members.get(host) or self._shape.head
            if host not in self._asking and moment - self._asked.get(host, -ASK_INTERVAL) >= ASK_INTERVAL:
                self._asked[host] = moment
                self._asking[host] = self._pool.submit(peer_status.ask, host, address)


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when the shape is there, 1 when it is not, 2 when the shape is invalid."""
    parser = argparse.ArgumentParser(prog="lockstep.ray.wait", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--shape", help="the required shape, as JSON; default: every host of this replica")
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")
    chosen = parser.parse_args(arguments)
    try:
        shape = shape_of(host_record.require(), json.loads(chosen.shape or "{}"))
    except (ShapeError, records.RecordError, TypeError, ValueError) as error:
        print(f"invalid --shape: {error}", file=sys.stderr)
        return 2
    waited = wait(
        shape, deadline=chosen.deadline, progress=lambda seen: print(assess(shape, seen), file=sys.stderr, flush=True)
    )
    print(f"after {waited.seconds:.1f} s: " + (waited.reason or "all resources are there"), file=sys.stderr, flush=True)
    if chosen.json:
        print(json.dumps(waited.as_dict()), flush=True)
    return 0 if waited.ready else 1


if __name__ == "__main__":
    sys.exit(main())
