"""Waiting until a Ray cluster has the shape that an engine needs, and saying meanwhile who is missing and why.

Two doors, one source: the module ``lockstep.vllm.ray_wait_for_resources`` and, on a host, ``python -m
lockstep.resources`` or ``wait`` itself in the engine supervisor. Deciding (``assess``, ``judge``) is pure.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from ..core import polling, records
from . import gcs, peer_status
from .gcs import Node, Table
from .peer_status import HostStatus

POLL_INTERVAL = 0.1
"""Seconds between two looks; a look costs about 1 ms."""
ASK_INTERVAL = 5.0
"""Seconds between two questions to the hosts that are missing."""
HOPELESS_FOR = 2.0
"""Seconds for which waiting must look useless before it ends: a start or a reboot passes through such states."""
DEADLINE = 1800.0

Code = Literal[
    "unreachable",
    "changing",
    "quarantined",
    "driver_not_loaded",
    "not_admitted",
    "unit_absent",
    "unit_not_started",
    "unit_failed",
    "token_refused",
    "version_refused",
    "address_absent",
    "wrong_address",
    "waiting_for_head",
    "joining",
    "draining",
    "dead",
    "silent",
    "too_few_gpus",
    "gpus_held",
    "wrong_labels",
]
FINAL: frozenset[str] = frozenset(
    {
        "quarantined",
        "not_admitted",
        "unit_absent",
        "unit_failed",
        "token_refused",
        "version_refused",
        "address_absent",
        "wrong_address",
        "too_few_gpus",
        "wrong_labels",
    }
)
"""Causes that no waiting cures: somebody has to act."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What must be there.

    Attributes:
        members: address by name of the hosts that may count; more than ``hosts`` of them means spares.
        hosts: how many must be there.
        gpus_per_host: that a host needs in order to count.
        gpus: in all; None for ``hosts`` times ``gpus_per_host``.
        resources: amounts of custom resources, in all.
        labels: Ray labels that a host needs in order to count.
        gpus_declared: that every host has by the inventory; None where unknown.
        free: count only GPUs that nobody holds.
        stable_for: seconds for which all that must hold.
        head: address of the head.
        head_host: its name.
        port: of the head's GCS; None for the one that ``ray.json`` names.
    """

    members: Mapping[str, str]
    hosts: int
    gpus_per_host: float = 1
    gpus: float | None = None
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gpus_declared: float | None = None
    free: bool = False
    stable_for: float = 0.0
    head: str = ""
    head_host: str = ""
    port: int | None = None

    @property
    def gpus_wanted(self) -> float:
        return self.hosts * self.gpus_per_host if self.gpus is None else self.gpus


@dataclasses.dataclass(frozen=True)
class Missing:
    """A host that does not count, and why.

    Attributes:
        host: its name.
        code: the cause, a fixed word.
        reason: the cause in words.
        final: whether waiting cannot help.
    """

    host: str
    code: Code
    reason: str

    @property
    def final(self) -> bool:
        return self.code in FINAL

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Observation:
    """One look: Ray's table, and what the hosts that it lacks said of themselves when last asked.

    Attributes:
        table: Ray's.
        told: by host; only hosts that were missing have been asked.
        silent: hosts whose node Ray still calls alive but whose node manager accepts no connection.
    """

    table: Table
    told: Mapping[str, HostStatus] = dataclasses.field(default_factory=dict)
    silent: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Assessment:
    """What an observation amounts to, held against a shape.

    Attributes:
        counted: nodes that count.
        missing: hosts that do not, in order of name.
        lacking: what is short, in words; empty when the shape is reached.
        possible: whether it can still be reached by waiting.
    """

    counted: tuple[Node, ...]
    missing: tuple[Missing, ...]
    lacking: str
    possible: bool

    @property
    def ready(self) -> bool:
        return not self.lacking

    def __str__(self) -> str:
        if self.ready:
            return f"{len(self.counted)} hosts with {_number(sum(node.gpus for node in self.counted))} GPUs are there"
        return "; ".join((self.lacking, *map(str, self.missing)))


@dataclasses.dataclass(frozen=True)
class Waited:
    """How a wait ended.

    Attributes:
        ready: whether the shape was there, and stable.
        code: ``ready``, ``hopeless``, ``impossible`` (it exceeds the inventory) or ``deadline``.
        reason: why not, in words that name hosts; empty when ready.
        seconds: how long it took.
        nodes: that counted at the end.
        missing: hosts that did not, and why.
    """

    ready: bool
    code: str
    reason: str
    seconds: float
    nodes: tuple[Node, ...]
    missing: tuple[Missing, ...]

    def as_dict(self) -> dict[str, Any]:
        record = dataclasses.asdict(self)
        record["seconds"] = round(self.seconds, 3)
        record["nodes"] = [dict(dataclasses.asdict(node)) for node in self.nodes]
        record["missing"] = [{**dataclasses.asdict(one), "final": one.final} for one in self.missing]
        return record


class ShapeError(ValueError):
    """A wanted shape that makes no sense."""


def shape_of(identity: Mapping[str, Any], wanted: Mapping[str, Any] | None = None) -> Shape:
    """The shape of a whole replica from ``host.json``, changed by ``wanted`` (same names as the attributes of Shape;
    ``members`` may also be a list of names out of ``host.json``'s peers).

    Raises:
        ShapeError: an unknown name or a member without an address.
    """
    wanted = dict(wanted or {})
    peers: Mapping[str, str] = identity.get("peers", {})
    unknown = sorted(set(wanted) - {field.name for field in dataclasses.fields(Shape)})
    if unknown:
        raise ShapeError(f"unknown in a wanted shape: {', '.join(unknown)}")
    members = wanted.pop("members", None)
    if isinstance(members, (list, tuple)):
        strangers = sorted(set(members) - set(peers))
        if strangers:
            raise ShapeError(f"{', '.join(strangers)}: no host of replica {identity.get('replica')}")
        members = {name: peers[name] for name in members}
    head = identity.get("head", {})
    members = members or peers
    defaults = {
        "hosts": len(members),
        "gpus_per_host": identity.get("gpus", 1),
        "gpus_declared": identity.get("gpus"),
        "head": head.get("address", ""),
        "head_host": head.get("host", ""),
    }
    return Shape(members=members, **{**defaults, **wanted})


def impossible(shape: Shape) -> str:
    """Why no waiting and no repair can bring this shape about; empty when it can come."""
    there, each = len(shape.members), shape.gpus_declared
    if shape.hosts > there:
        return f"{shape.hosts} hosts are wanted, the replica has {there}: {', '.join(sorted(shape.members))}"
    if each is not None and shape.gpus_per_host > each:
        return f"{_number(shape.gpus_per_host)} GPUs per host are wanted, the inventory declares {_number(each)}"
    if each is not None and shape.gpus_wanted > each * there:
        return f"{_number(shape.gpus_wanted)} GPUs are wanted, the inventory declares {_number(each)} on {there} hosts"
    return ""


def assess(shape: Shape, seen: Observation) -> Assessment:
    """Hold what was seen against what is wanted."""
    found = {host: _verdict(shape, seen, host) for host in sorted(shape.members)}
    counted = tuple(one for one in found.values() if isinstance(one, Node))
    missing = tuple(one for one in found.values() if isinstance(one, Missing))
    within_reach = len(counted) + sum(not one.final for one in missing)
    lacking = _head_trouble(seen) or _lacking(shape, counted) or _undecided(missing)
    possible = within_reach >= shape.hosts and not _head_is_gone(shape, seen) and seen.table.head != "refused"
    return Assessment(counted, missing, lacking, possible)


def judge(shape: Shape, seen: Observation) -> polling.Judgement:
    """Whether to go on waiting."""
    assessment = assess(shape, seen)
    if assessment.ready:
        return polling.Judgement("ready")
    return polling.Judgement("wait" if assessment.possible else "hopeless", str(assessment))


def wait(
    shape: Shape,
    *,
    deadline: float = DEADLINE,
    progress: Callable[[Observation], None] | None = None,
) -> Waited:
    """Wait until the shape is there and stable.

    It ends within 0.2 s of the resources' existence, early when waiting cannot help, and at the deadline in any case.
    It survives restarts of the head.

    Args:
        shape: what must be there.
        deadline: seconds.
        progress: told each time that who is missing, or why, has changed.
    """
    verdict = impossible(shape)
    if verdict:
        return Waited(False, "impossible", verdict, 0.0, (), ())
    observer = _Observer(shape)
    last_told: list[str] = []

    def tell(seen: Observation, judgement: polling.Judgement) -> None:
        if progress is not None and last_told != [judgement.reason]:
            last_told[:] = [judgement.reason]
            progress(seen)

    try:
        ended = polling.poll(
            observer.look,
            lambda seen: judge(shape, seen),
            deadline=deadline,
            interval=POLL_INTERVAL,
            stable_for=shape.stable_for,
            hopeless_for=HOPELESS_FOR,
            progress=tell,
        )
    finally:
        observer.close()
    final = assess(shape, ended.last)
    return Waited(ended.ready, ended.code, ended.reason, ended.seconds, final.counted, final.missing)


class _Observer:
    """Looks at the head's table; asks the hosts that it lacks, beside the looking so that none can slow it."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._cluster = gcs.Cluster(shape.head, shape.port, gcs.token())
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=16)
        self._told: dict[str, HostStatus] = {}
        self._asked: dict[str, float] = {}
        self._asking: dict[str, concurrent.futures.Future[HostStatus]] = {}

    def look(self) -> Observation:
        table = self._cluster.table()
        self._collect()
        seen = Observation(table, dict(self._told))
        assessment = assess(self._shape, seen)
        self._ask({one.host for one in assessment.missing} | self._head_if_down(table))
        if not assessment.ready:
            return seen
        rows = (_row(self._shape, table, host) for host in self._shape.members)
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
                self._told[host] = self._asking.pop(host).result()

    def _ask(self, hosts: set[str]) -> None:
        moment = time.monotonic()
        for host in set(self._told) - hosts:
            self._told.pop(host)
            self._asked.pop(host, None)
        for host in hosts:
            address = self._shape.members.get(host) or self._shape.head
            if host not in self._asking and moment - self._asked.get(host, -ASK_INTERVAL) >= ASK_INTERVAL:
                self._asked[host] = moment
                self._asking[host] = self._pool.submit(peer_status.ask, host, address)


def _verdict(shape: Shape, seen: Observation, host: str) -> Node | Missing:
    """The node of a host where it counts, else why it does not."""
    node = _row(shape, seen.table, host)
    if node is None:
        return _absent(shape, seen, host, seen.told.get(host), [row for row in seen.table.nodes if row.host == host])
    gpus = node.free.get("GPU", 0.0) if shape.free else node.gpus
    short = {name: value for name, value in shape.labels.items() if node.labels.get(name) != value}
    if node.address != shape.members[host]:
        return Missing(host, "wrong_address", f"joined as {node.address}, its address is {shape.members[host]}")
    if node.draining:
        return Missing(host, "draining", "is draining in Ray")
    if host in seen.silent:
        return Missing(host, "silent", f"is in Ray's table but {node.address}:{node.port} accepts no connection")
    if node.gpus < shape.gpus_per_host:
        return Missing(host, "too_few_gpus", f"has {_number(node.gpus)} GPUs of {_number(shape.gpus_per_host)}")
    if gpus < shape.gpus_per_host:
        return Missing(host, "gpus_held", f"{_number(gpus)} of {_number(shape.gpus_per_host)} GPUs are free")
    if short:
        told_labels = ", ".join(f"{name}={node.labels.get(name, 'absent')}" for name in sorted(short))
        return Missing(host, "wrong_labels", f"carries {told_labels}")
    return node


def _row(shape: Shape, table: Table, host: str) -> Node | None:
    """The row of a living host in Ray's table, of several the newest; None where it has none."""
    alive = (node for node in table.nodes if node.host == host and node.alive)
    return max(alive, key=lambda node: (node.address == shape.members[host], node.started), default=None)


def _absent(shape: Shape, seen: Observation, host: str, told: HostStatus | None, rows: list[Node]) -> Missing:
    """Why a host has no living node, by its own words where it could be asked."""
    died = max(rows, key=lambda node: node.started, default=None)
    death = f"; Ray lost its node: {died.death}" if died is not None and died.death else ""
    if told is None:
        return Missing(host, "dead" if died else "joining", f"is not in Ray's table{death}")
    if not told.answered:
        return Missing(host, "unreachable", f"{shape.members[host]} says nothing of itself ({told.error}){death}")
    if told.quarantine is not None:
        return _quarantined(host, told.quarantine)
    return _by_unit(host, told, death)


def _quarantined(host: str, record: Mapping[str, Any]) -> Missing:
    """A run that changes the host lifts its quarantine by itself; any other waits for a person."""
    by = f" (by {record['owner']})" if record.get("owner") else ""
    code: Code = "changing" if record.get("kind") == "changing" else "quarantined"
    return Missing(host, code, f"is in quarantine: {record.get('reason', '?')}{by}")


def _by_unit(host: str, told: HostStatus, death: str) -> Missing:
    active, unit, ray = told.unit.get("active"), peer_status.UNIT, told.ray
    if not told.unit.get("present", True):
        return Missing(host, "unit_absent", f"has no unit {unit}")
    if active == "inactive" and told.refusal:
        return _refused(host, told)
    if active != "active" and told.driver is None:
        return Missing(host, "driver_not_loaded", f"the NVIDIA driver is not loaded; {unit} is {active}")
    if active == "failed":
        return Missing(host, "unit_failed", f"{unit} has failed ({told.unit.get('result')}){_said(ray)}")
    if ray.get("code") in FINAL | {"waiting_for_head"} and active != "inactive":
        return Missing(host, ray["code"], str(ray.get("reason", "")))
    if active == "inactive":
        return Missing(host, "unit_not_started", f"{unit} is not started")
    return Missing(host, "joining", f"{unit} is {active}, its node is not in Ray's table yet{death}")


def _refused(host: str, told: HostStatus) -> Missing:
    """A unit that its condition turned away does not try again by itself; one that has not tried yet, as during a boot,
    may find the driver loaded when it does."""
    driver = "" if told.driver else "the NVIDIA driver is not loaded; "
    if told.unit.get("result") == "exec-condition":
        return Missing(host, "not_admitted", f"{driver}may not join: {told.refusal}")
    return Missing(
        host, "unit_not_started" if told.driver else "driver_not_loaded", f"{driver}{peer_status.UNIT} is not started"
    )


def _said(ray: Mapping[str, Any]) -> str:
    return f": {ray['reason']}" if ray.get("reason") else ""


def _head_trouble(seen: Observation) -> str:
    return {
        "up": "",
        "down": f"the head does not answer ({seen.table.error})",
        "refused": f"the head refuses this host's token ({seen.table.error})",
    }[seen.table.head]


def _head_is_gone(shape: Shape, seen: Observation) -> bool:
    """A head that is down and says itself that it will not come back by itself."""
    told = seen.told.get(shape.head_host)
    if seen.table.head != "down" or told is None or not told.answered:
        return False
    return _absent(
        dataclasses.replace(shape, members={shape.head_host: shape.head}), seen, shape.head_host, told, []
    ).final


def _lacking(shape: Shape, counted: tuple[Node, ...]) -> str:
    gpus = sum(node.free.get("GPU", 0.0) if shape.free else node.gpus for node in counted)
    short = []
    if len(counted) < shape.hosts:
        short.append(f"{len(counted)} of {shape.hosts} hosts")
    if gpus < shape.gpus_wanted:
        short.append(f"{_number(gpus)} of {_number(shape.gpus_wanted)} GPUs")
    for name, amount in sorted(shape.resources.items()):
        have = sum(node.resources.get(name, 0.0) for node in counted)
        if have < amount:
            short.append(f"{_number(have)} of {_number(amount)} {name}")
    return ", ".join(short) + " are there" if short else ""


def _undecided(missing: Iterable[Missing]) -> str:
    """Enough others may be there, but as long as Ray counts a host that is gone it may place an engine's ranks on it."""
    silent = [one.host for one in missing if one.code == "silent"]
    return f"Ray has not given up {', '.join(silent)} yet" if silent else ""


def _number(value: float) -> str:
    return f"{value:g}"


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when the shape is there, 1 when it is not, 2 when what is wanted makes no sense."""
    parser = argparse.ArgumentParser(prog="lockstep.ray.wait", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--config", type=Path, help="JSON file whose key 'shape' says what is wanted")
    parser.add_argument("--shape", help="what is wanted, as JSON; default: every host of this replica")
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")
    chosen = parser.parse_args(arguments)
    try:
        wanted = _wanted(chosen.config, chosen.shape)
        shape = shape_of(records.read(records.HOST) or {}, wanted)
    except (ShapeError, records.RecordError, TypeError, ValueError) as error:
        print(f"what is wanted makes no sense: {error}", file=sys.stderr)
        return 2
    waited = wait(shape, deadline=chosen.deadline, progress=lambda seen: _report(shape, seen))
    print(f"after {waited.seconds:.1f} s: " + (waited.reason or "all resources are there"), file=sys.stderr, flush=True)
    if chosen.json:
        print(json.dumps(waited.as_dict()), flush=True)
    return 0 if waited.ready else 1


def _wanted(config: Path | None, shape: str | None) -> dict[str, Any]:
    from_file = (records.read(config) or {}).get("shape") if config is not None else None
    return {**(from_file or {}), **(json.loads(shape) if shape else {})}


def _report(shape: Shape, seen: Observation) -> None:
    print(str(assess(shape, seen)), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
