"""Who is missing from a Ray cluster and why: pure functions of what was seen of Ray and of the hosts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from ..admission.quarantine import Quarantine, QuarantineKind
from ..core import polling
from .codes import FINAL, Cause, StartCode
from .gcs import Node, Table
from .peer_status import UNIT, HostStatus
from .ports import PEER_STATUS
from .shape import Shape, number


@dataclasses.dataclass(frozen=True)
class Missing:
    """A host that does not count, and why.

    Attributes:
        host: its name.
        code: the cause.
        reason: the cause, for people.
        final: whether waiting cannot help.
    """

    host: str
    code: Cause
    reason: str

    @property
    def final(self) -> bool:
        return self.code in FINAL

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Observation:
    """One sample: Ray's table, and the status of the hosts that it lacks as they last gave it.

    Attributes:
        table: Ray's.
        reported: by host; only hosts that were missing have been asked.
        silent: hosts whose node Ray still calls alive but whose node manager accepts no connection.
    """

    table: Table
    reported: Mapping[str, HostStatus] = dataclasses.field(default_factory=dict)
    silent: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Assessment:
    """What an observation amounts to, compared with a shape.

    Attributes:
        counted: nodes that count.
        missing: hosts that do not, in order of name.
        lacking: what is short; empty when the shape is reached.
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
            return f"{len(self.counted)} hosts with {number(sum(node.gpus for node in self.counted))} GPUs are there"
        return "; ".join((self.lacking, *map(str, self.missing)))


def assess(shape: Shape, seen: Observation) -> Assessment:
    """Hold what was seen against the required shape."""
    verdicts = {host: _verdict(shape, seen, host) for host in sorted(shape.members)}
    counted = tuple(one for one in verdicts.values() if isinstance(one, Node))
    missing = tuple(one for one in verdicts.values() if isinstance(one, Missing))
    within_reach = len(counted) + sum(not one.final for one in missing)
    lacking = _head_trouble(seen) or _lacking(shape, counted) or _undecided(missing)
    possible = within_reach >= shape.hosts and not _head_is_gone(shape, seen) and seen.table.head != "refused"
    return Assessment(counted, missing, lacking, possible)


def evaluate(shape: Shape, seen: Observation) -> polling.Evaluation:
    """Whether to go on waiting."""
    assessment = assess(shape, seen)
    if assessment.ready:
        return polling.Evaluation("ready")
    return polling.Evaluation("wait" if assessment.possible else "hopeless", str(assessment))


def _verdict(shape: Shape, seen: Observation, host: str) -> Node | Missing:
    """The node of a host where it counts, else why it does not."""
    node = row(shape, seen.table, host)
    if node is None:
        past = [node for node in seen.table.nodes if node.host == host]
        return _absent(shape, seen.reported.get(host), host, past)
    gpus = _gpus(shape, node)
    short = {name: value for name, value in shape.labels.items() if node.labels.get(name) != value}
    if node.address != shape.members[host]:
        return Missing(host, Cause.WRONG_ADDRESS, f"joined as {node.address}, its address is {shape.members[host]}")
    if node.draining:
        return Missing(host, Cause.DRAINING, "is draining in Ray")
    if host in seen.silent:
        return Missing(host, Cause.SILENT, f"is in Ray's table but {node.address}:{node.port} accepts no connection")
    if node.gpus < shape.gpus_per_host:
        return Missing(host, Cause.TOO_FEW_GPUS, f"has {number(node.gpus)} GPUs of {number(shape.gpus_per_host)}")
    if gpus < shape.gpus_per_host:
        return Missing(host, Cause.GPUS_HELD, f"{number(gpus)} of {number(shape.gpus_per_host)} GPUs are free")
    if short:
        shown = ", ".join(f"{name}={node.labels.get(name, 'absent')}" for name in sorted(short))
        return Missing(host, Cause.WRONG_LABELS, f"carries {shown}")
    return node


def _gpus(shape: Shape, node: Node) -> float:
    """Those of a node that count."""
    return node.free.get("GPU", 0.0) if shape.free else node.gpus


def row(shape: Shape, table: Table, host: str) -> Node | None:
    """The row of a living host in Ray's table, of several the newest; None where it has none."""
    alive = (node for node in table.nodes if node.host == host and node.alive)
    return max(alive, key=lambda node: (node.address == shape.members[host], node.started), default=None)


def _absent(shape: Shape, status: HostStatus | None, host: str, past: list[Node]) -> Missing:
    """Why a host has no living node, by its own status where it could be asked."""
    died = max(past, key=lambda node: node.started, default=None)
    death = f"; Ray lost its node: {died.death}" if died is not None and died.death else ""
    if status is None:
        return Missing(host, Cause.DEAD if died else Cause.JOINING, f"is not in Ray's table{death}")
    if not status.answered:
        silent = f"{shape.members[host]} gives no status on port {PEER_STATUS}"
        return Missing(host, Cause.UNREACHABLE, f"{silent} ({status.error}){death}")
    if status.quarantine is not None:
        return _quarantined(host, Quarantine.lenient(status.quarantine))
    return _by_unit(host, status, death)


def _quarantined(host: str, record: Quarantine) -> Missing:
    """A run that changes the host lifts its quarantine by itself; any other waits for a person."""
    code = Cause.CHANGING if record.kind is QuarantineKind.CHANGING else Cause.QUARANTINED
    return Missing(host, code, f"is in quarantine: {record}")


def _by_unit(host: str, status: HostStatus, death: str) -> Missing:
    active, unit, ray = status.unit.active, UNIT, status.ray
    if not status.unit.present:
        return Missing(host, Cause.UNIT_ABSENT, f"has no unit {unit}")
    if active == "inactive" and status.refusal:
        return _refused(host, status)
    if active != "active" and status.driver is None:
        return Missing(host, Cause.DRIVER_NOT_LOADED, f"the NVIDIA driver is not loaded; {unit} is {active}")
    if active == "failed":
        why = f": {ray.reason}" if ray.reason else ""
        return Missing(host, Cause.UNIT_FAILED, f"{unit} has failed ({status.unit.result}){why}")
    if isinstance(ray.code, StartCode) and ray.code is not StartCode.STARTING and active != "inactive":
        return Missing(host, Cause(ray.code), ray.reason)
    if active == "inactive":
        return Missing(host, Cause.UNIT_NOT_STARTED, f"{unit} is not started")
    return Missing(host, Cause.JOINING, f"{unit} is {active}, its node is not in Ray's table yet{death}")


def _refused(host: str, status: HostStatus) -> Missing:
    """A unit that its condition turned away does not try again by itself; one that has not tried yet, as during a boot,
    may find the driver loaded when it does."""
    driver = "" if status.driver else "the NVIDIA driver is not loaded; "
    if status.unit.result == "exec-condition":
        return Missing(host, Cause.NOT_ADMITTED, f"{driver}may not join: {status.refusal}")
    code = Cause.UNIT_NOT_STARTED if status.driver else Cause.DRIVER_NOT_LOADED
    return Missing(host, code, f"{driver}{UNIT} is not started")


def _head_trouble(seen: Observation) -> str:
    return {
        "up": "",
        "down": f"the head does not answer ({seen.table.error})",
        "refused": f"the head refuses this host's token ({seen.table.error})",
    }[seen.table.head]


def _head_is_gone(shape: Shape, seen: Observation) -> bool:
    """A head that is down and whose own status shows that it will not come back by itself."""
    status = seen.reported.get(shape.head_host)
    if seen.table.head != "down" or status is None or not status.answered:
        return False
    alone = dataclasses.replace(shape, members={shape.head_host: shape.head})
    return _absent(alone, status, shape.head_host, []).final


def _lacking(shape: Shape, counted: tuple[Node, ...]) -> str:
    gpus = sum(_gpus(shape, node) for node in counted)
    short = []
    if len(counted) < shape.hosts:
        short.append(f"{len(counted)} of {shape.hosts} hosts")
    if gpus < shape.gpus_required:
        short.append(f"{number(gpus)} of {number(shape.gpus_required)} GPUs")
    for name, amount in sorted(shape.resources.items()):
        have = sum(node.resources.get(name, 0.0) for node in counted)
        if have < amount:
            short.append(f"{number(have)} of {number(amount)} {name}")
    return ", ".join(short) + " are there" if short else ""


def _undecided(missing: Iterable[Missing]) -> str:
    """Other hosts may suffice, but as long as Ray counts a host that is gone it may place an engine's ranks on it."""
    silent = [one.host for one in missing if one.code is Cause.SILENT]
    return f"waiting for Ray to mark {', '.join(silent)} dead" if silent else ""
