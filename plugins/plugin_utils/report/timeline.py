"""A journal, read back: who did what when, what came of it, who served meanwhile.

Pure: a list of events (docs/reference/journal.md) in, dataclasses out. Times are seconds since the run began.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal

from ansible_collections.lockstep.vllm.plugins.module_utils.core.grouping import grouped
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.engine_start import EngineStart
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import (
    RUN_OUTCOMES,
    SAME_COMMAND,
    STATUS_COMMAND,
    Failure,
    Fingerprint,
    GateEvent,
    RunOutcome,
    RunPlan,
    of,
)
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import Given, read
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.served import Completion, Endpoint

_COLLECTION = "lockstep.vllm."
Event = Given
Kind = Literal["prepare", "drain", "change", "gates", "start", "bake", "rollback", "serving"]

KIND_OF_STEP: dict[str, Kind] = {
    "drain": "drain",
    "prepare": "prepare",
    "quarantine": "change",
    "driver": "change",
    "runtime": "change",
    "load": "change",
    "gates": "gates",
    "ray": "start",
    "wait": "start",
    "serve": "start",
    "prove": "start",
    "admit": "start",
    "bake": "bake",
    "restore": "rollback",
}


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of one host's time. ``outcome`` is ``ok``, ``failed``, ``unreachable``, ``unfinished`` or ``serving``."""

    kind: Kind
    step: str
    began: float
    ended: float
    outcome: str = "ok"
    wave: int | None = None

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclasses.dataclass(frozen=True)
class Row:
    """One host, or a replica that was in no wave, and its stretches of time; serving ones lie under the steps."""

    host: str
    replica: str
    wave: int | None
    serving: tuple[Segment, ...]
    steps: tuple[Segment, ...]
    before: Fingerprint
    after: Fingerprint

    @property
    def serves(self) -> bool:
        """Whether it served when the journal ended."""
        return bool(self.serving) and self.serving[-1].outcome == "serving"


@dataclasses.dataclass(frozen=True)
class WaveSpan:
    """One wave: when it went on; ``began`` is None where it was never reached."""

    n: int
    replicas: tuple[str, ...]
    hosts: tuple[str, ...]
    reasons: Mapping[str, tuple[str, ...]]
    began: float | None
    ended: float | None


@dataclasses.dataclass(frozen=True)
class RunStart:
    """Who began which run where, by which command, and when (RFC 3339, UTC).

    Attributes:
        cluster: what its inventory is called.
        zone, utc_offset: of the controller's clock, the offset in seconds east of UTC.
    """

    playbook: str = ""
    at: str = ""
    user: str = ""
    controller: str = ""
    limit: str = ""
    command: str = ""
    cluster: str = ""
    zone: str = ""
    utc_offset: str = ""


@dataclasses.dataclass(frozen=True)
class Note:
    host: str
    text: str
    elapsed: float


@dataclasses.dataclass(frozen=True)
class Start:
    """A start of a replica's engine.

    Attributes:
        completion: what it generated then to prove that it serves; None where it did not.
    """

    replica: str
    engine: EngineStart
    elapsed: float
    completion: Completion | None = None


@dataclasses.dataclass(frozen=True)
class Timeline:
    """All that the report shows.

    Attributes:
        seconds: how long the run took, or until the journal's last event.
        failures: in order; the first is where the trouble began.
        skipped: replica that is in no wave to the reason.
        endpoints: where clients reach the cluster, the routers first.
        warnings: what to know besides, each with the hosts that it is of; none where it is of the whole run.
        conclusions: what the playbook itself said at its end.
        next: the next command to type, if any; of a run that was killed the same again, which goes on from there.
        status: the command that asks the hosts how they are now.
        on_cpu: whether vLLM is one for CPU, which captures no graph.
    """

    run: str
    start: RunStart
    outcome: RunOutcome
    seconds: float
    waves: tuple[WaveSpan, ...]
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    gates: tuple[GateEvent, ...]
    starts: tuple[Start, ...]
    endpoints: tuple[Endpoint, ...]
    warnings: Mapping[str, tuple[str, ...]]
    conclusions: tuple[str, ...]
    notes: tuple[Note, ...]
    skipped: Mapping[str, str]
    next: str
    status: str
    on_cpu: bool


def build(events: Sequence[Event]) -> Timeline:
    """The timeline of a journal; any prefix of a journal has one."""
    start: Event = next(iter(of(events, "run_started")), {})
    end: Event = next(reversed(of(events, "run_ended")), {})
    plan = RunPlan.parse(next(iter(of(events, "planned")), {}))
    last = max((float(event.get("elapsed", 0.0)) for event in events), default=0.0)
    failures = tuple(Failure.of_event(event) for event in of(events, "failed"))
    again = str(start.get("command") or SAME_COMMAND)
    following = [failure.next for failure in failures if failure.next]
    return Timeline(
        run=plan.run or str(start.get("run") or ""),
        start=RunStart(**{field.name: str(start.get(field.name) or "") for field in dataclasses.fields(RunStart)}),
        outcome=next((outcome for outcome in RUN_OUTCOMES if outcome == end.get("outcome")), "unfinished"),
        seconds=last,
        waves=_waves(events, plan, last),
        rows=_rows(events, plan, last),
        failures=failures,
        gates=tuple(GateEvent.parse(event) for event in of(events, "gate")),
        starts=tuple(_starts(events)),
        endpoints=plan.endpoints,
        warnings=_warnings(events, plan),
        conclusions=tuple(str(event.get("text") or "") for event in of(events, "conclusion")),
        notes=tuple(read(Note, note) for note in of(events, "note")),
        skipped=plan.skipped,
        next=str(end.get("next") or next(reversed(following), "")) if end else again,
        status=str(end.get("status") or _status(start)),
        on_cpu=any(str(event["fingerprint"].get("vllm")).endswith("+cpu") for event in of(events, "versions")),
    )


def _status(start: Event) -> str:
    """Of a run that did not come to say it: by the command that began it, as far as that is known."""
    name = str(start.get("playbook") or "")
    try:
        words = shlex.split(str(start.get("command") or ""))
    except ValueError:
        words = []
    playbooks = (f"{name}.yml", f"{_COLLECTION}{name}")
    at = next((n for n in reversed(range(len(words))) if PurePosixPath(words[n]).name in playbooks), 0)
    if not at:
        return STATUS_COMMAND
    folder = PurePosixPath(words[at]).parent
    beside = folder if folder.name == "playbooks" else folder / "playbooks"
    by_name = words[at].startswith(_COLLECTION)
    return shlex.join([*words[:at], f"{_COLLECTION}status" if by_name else str(beside / "status.yml")])


def _starts(events: Sequence[Event]) -> Iterator[Start]:
    """Each with the completion that came after it and before the next start of that replica."""
    of_replica: dict[str, Start] = {}
    for event in events:
        name = str(event.get("replica") or "")
        if event.get("event") == "engine_start":
            if name in of_replica:
                yield of_replica[name]
            of_replica[name] = Start(name, EngineStart.of_event(event), float(event.get("elapsed", 0.0)))
        elif event.get("event") == "completion" and name in of_replica:
            completion = Completion.parse({**event, "ok": True})
            of_replica[name] = dataclasses.replace(of_replica[name], completion=completion)
    yield from of_replica.values()


def _warnings(events: Sequence[Event], plan: RunPlan) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {text: {} for text in plan.warnings}
    for event in of(events, "warning"):
        found.setdefault(str(event.get("text") or ""), {}).setdefault(str(event.get("host") or ""))
    for gate in map(GateEvent.parse, of(events, "gate")):
        for text in gate.warnings:
            found.setdefault(text, {}).setdefault(gate.on)
    return {text: tuple(sorted(hosts)) for text, hosts in found.items()}


def typical_wave(journals: Iterable[Sequence[Event]]) -> float | None:
    """Seconds that a wave took in the newest journal that has a finished one; None where none has."""
    for events in journals:
        if not of(events, "run_ended") or of(events, "failed"):
            continue
        plan = RunPlan.parse(next(iter(of(events, "planned")), {}))
        lengths = [
            wave.ended - wave.began
            for wave in _waves(events, plan, 0.0)
            if wave.began is not None and wave.ended is not None
        ]
        if lengths:
            return sum(lengths) / len(lengths)
    return None


def downtime(timeline: Timeline) -> dict[str, float]:
    """Seconds for which each replica that served at some time did not serve between its first and last moment."""
    found: dict[str, float] = {}
    for row in timeline.rows:
        if row.serving and row.steps:
            end = row.serving[-1].ended if row.serves else timeline.seconds
            out = end - row.serving[0].began - sum(segment.seconds for segment in row.serving)
            if out > 0.05:
                found[row.replica] = out
    return found


def _waves(events: Sequence[Event], plan: RunPlan, last: float) -> tuple[WaveSpan, ...]:
    began = {event["wave"]: float(event["elapsed"]) for event in reversed(of(events, "wave_started"))}
    ended = {event["wave"]: float(event["elapsed"]) for event in of(events, "wave_ended")}
    return tuple(
        WaveSpan(
            n=wave.n,
            replicas=wave.replicas,
            hosts=wave.hosts,
            reasons=wave.reasons,
            began=began.get(wave.n),
            ended=ended.get(wave.n, last) if wave.n in began else None,
        )
        for wave in plan.waves
    )


def _rows(events: Sequence[Event], plan: RunPlan, last: float) -> tuple[Row, ...]:
    replica_of: dict[str, str] = {}
    wave_of: dict[str, int] = {}
    for wave in plan.waves:
        known = wave.replica_of
        replica_of.update({host: known.get(host, host) for host in wave.hosts})
        wave_of.update(dict.fromkeys(wave.hosts, wave.n))
    for event in of(events, "step_started"):
        replica_of.setdefault(event["host"], event["host"])
    named = set(replica_of.values())
    replica_of.update({name: name for name in [*plan.serving, *plan.skipped] if name not in named})
    of_host, of_replica = _by(events, "host"), _by(of(events, "serving"), "replica")
    return tuple(
        Row(
            host=host,
            replica=replica,
            wave=wave_of.get(host),
            serving=_serving(of_replica.get(replica, []), replica in plan.serving, last),
            steps=_steps(of_host.get(host, []), last),
            before=_fingerprint(of_host.get(host, []), 0),
            after=_fingerprint(of_host.get(host, []), -1),
        )
        for host, replica in replica_of.items()
    )


def _by(events: Iterable[Event], key: str) -> dict[str, list[Event]]:
    return grouped((event[key], event) for event in events if event.get(key))


def _steps(of_host: Iterable[Event], last: float) -> tuple[Segment, ...]:
    found: list[Segment] = []
    begun: Event | None = None
    for event in of_host:
        if event["event"] == "step_started":
            begun = event
        elif event["event"] == "step_ended":
            begun = None
            if event.get("outcome") != "skipped":
                found.append(_segment(event, float(event["began"]), float(event["ended"]), str(event["outcome"])))
    if begun is not None:
        found.append(_segment(begun, float(begun["elapsed"]), last, "unfinished"))
    return tuple(found)


def _segment(event: Event, began: float, ended: float, outcome: str) -> Segment:
    return Segment(KIND_OF_STEP.get(event["step"], "change"), event["step"], began, ended, outcome, event.get("wave"))


def _serving(of_replica: Iterable[Event], initially: bool, last: float) -> tuple[Segment, ...]:
    found: list[Segment] = []
    since = 0.0 if initially else None
    for event in of_replica:
        if event["serving"] and since is None:
            since = float(event["elapsed"])
        elif not event["serving"] and since is not None:
            found.append(Segment("serving", "serving", since, float(event["elapsed"])))
            since = None
    if since is not None:
        found.append(Segment("serving", "serving", since, last, "serving"))
    return tuple(found)


def _fingerprint(of_host: Iterable[Event], which: int) -> Fingerprint:
    known: list[Fingerprint] = [event["fingerprint"] for event in of(of_host, "versions")]
    return known[which] if known else {}
