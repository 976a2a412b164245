"""Taking this host's node out of Ray in order: no new work, and time for what runs to end.

Needs the serving environment's Python, as ``gcs`` does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from ..core import host_record, polling, records
from ..core.host_record import HostRecord
from . import gcs
from .codes import DrainCode
from .gcs import Cluster, Node, Table

INTERVAL = 0.25


@dataclasses.dataclass(frozen=True)
class Drained:
    """How draining ended."""

    changed: bool
    state: DrainCode
    reason: str = ""
    seconds: float = 0.0


def own_node(table: Table, identity: HostRecord) -> Node | None:
    """The living node of the host with that ``host.json``."""
    return next((node for node in table.nodes if node.host == identity["host"] and node.alive), None)


def held(table: Table, identity: HostRecord) -> polling.Evaluation:
    """Whether somebody still works on the host: holds one of its GPUs."""
    node = own_node(table, identity)
    if node is None or node.free.get("GPU", 0.0) >= node.gpus:
        return polling.Evaluation("ready")
    return polling.Evaluation("wait", f"{node.gpus - node.free.get('GPU', 0.0):g} of {node.gpus:g} GPUs are held")


def drain(identity: HostRecord, reason: str, deadline: float, *, check: bool = False) -> Drained:
    """Drain the host with that ``host.json`` and wait up to ``deadline`` seconds until nobody works on it."""
    cluster = Cluster(identity["head"]["address"], token=gcs.token())
    try:
        table = cluster.table()
        node = own_node(table, identity)
        if table.head != "up":
            return Drained(False, DrainCode.HEAD_AWAY, table.error)
        if node is None:
            return Drained(False, DrainCode.ABSENT)
        if not node.draining and not check:
            declined = cluster.drain(node.node_id, reason, deadline)
            if declined:
                return Drained(False, DrainCode.DECLINED, declined)
        ended = polling.poll(
            cluster.table,
            lambda seen: held(seen, identity),
            deadline=0.0 if check else deadline,
            interval=INTERVAL,
        )
        state = DrainCode.DRAINED if ended.ready else DrainCode.BUSY
        return Drained(not node.draining, state, ended.reason, round(ended.seconds, 3))
    finally:
        cluster.close()


def main() -> int:
    """Print how it ended as one JSON object."""
    parser = argparse.ArgumentParser(prog="lockstep.ray.drain", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--reason", default="Lockstep drains this host")
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds for running work to end")
    parser.add_argument("--check", action="store_true", help="change nothing")
    chosen = parser.parse_args()
    identity = host_record.stored()
    result = Drained(False, DrainCode.ABSENT, f"{records.HOST} does not exist")
    if identity is not None:
        result = drain(identity, chosen.reason, chosen.deadline, check=chosen.check)
    print(json.dumps(dataclasses.asdict(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
