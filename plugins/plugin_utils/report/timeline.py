"""A journal, read back as a picture: who did what when, what came of it, who served meanwhile.

Pure: a list of events (docs/reference/journal.md) in, dataclasses out. Times are seconds since the run began.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import tracker

Event = Mapping[str, Any]
Kind = Literal["prepare", "drain", "change", "gates", "start", "bake", "restore", "serving"]

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
    "restore": "restore",
}


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of one host's time. ``outcome`` is ``ok``, ``failed``, ``unreachable`` or ``unfinished``."""

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
    before: Mapping[str, Any]
    after: Mapping[str, Any]

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
    reasons: Mapping[str, Sequence[str]]
    began: float | None
    ended: float | None


@dataclasses.dataclass(frozen=True)
class Timeline:
    """All that the report tells.

    Attributes:
        outcome: as in ``run_ended``; ``unfinished`` where the journal just stops.
        seconds: how long the run took, or until the journal's last event.
        failures: ``failed`` events, in order; the first is where the trouble began.
        gates: ``gate`` events, in order.
        notes: ``note`` events, in order.
        next: the next command to type, if any.
    """

    run: str
    start: Event
    outcome: str
    seconds: float
    waves: tuple[WaveSpan, ...]
    rows: tuple[Row, ...]
    failures: tuple[Event, ...]
    gates: tuple[Event, ...]
    notes: tuple[Event, ...]
    skipped: Mapping[str, str]
    next: str


def build(events: Sequence[Event]) -> Timeline:
    """The timeline of a journal; any prefix of a journal has one."""
    start: Event = next(iter(_of(events, "run_started")), {})
    end: Event = next(iter(_of(events, "run_ended")), {})
    plan: Event = next(iter(_of(events, "planned")), {})
    last = max((float(event.get("elapsed", 0.0)) for event in events), default=0.0)
    failures = tuple(_of(events, "failed"))
    said = [str(failure["next"]) for failure in failures if failure.get("next")]
    return Timeline(
        run=str(plan.get("run") or start.get("run") or ""),
        start=start,
        outcome=str(end.get("outcome") or "unfinished"),
        seconds=last,
        waves=_waves(events, plan, last),
        rows=_rows(events, plan, last),
        failures=failures,
        gates=tuple(_of(events, "gate")),
        notes=tuple(_of(events, "note")),
        skipped=plan.get("skipped") or {},
        next=str(end.get("next") or next(reversed(said), "" if end else tracker.AGAIN)),
    )


def typical_wave(journals: Iterable[Sequence[Event]]) -> float | None:
    """Seconds that a wave took in the newest journal that has a finished one; None where none has."""
    for events in journals:
        lengths = [
            wave.ended - wave.began
            for wave in build(events).waves
            if wave.began is not None and wave.ended is not None and next(iter(_of(events, "run_ended")), None)
        ]
        if lengths and not any(_of(events, "failed")):
            return sum(lengths) / len(lengths)
    return None


def _of(events: Iterable[Event], kind: str) -> list[Event]:
    return [event for event in events if event.get("event") == kind]


def _waves(events: Sequence[Event], plan: Event, last: float) -> tuple[WaveSpan, ...]:
    began = {event["wave"]: float(event["elapsed"]) for event in reversed(_of(events, "wave_started"))}
    ended = {event["wave"]: float(event["elapsed"]) for event in _of(events, "wave_ended")}
    return tuple(
        WaveSpan(
            n=wave["n"],
            replicas=tuple(wave.get("replicas") or ()),
            hosts=tuple(wave.get("hosts") or ()),
            reasons=wave.get("reasons") or {},
            began=began.get(wave["n"]),
            ended=ended.get(wave["n"], last) if wave["n"] in began else None,
        )
        for wave in plan.get("waves") or []
    )


def _rows(events: Sequence[Event], plan: Event, last: float) -> tuple[Row, ...]:
    replica_of: dict[str, str] = {}
    wave_of: dict[str, int] = {}
    for wave in plan.get("waves") or []:
        known = tracker.replicas_of(wave)
        replica_of.update({host: known.get(host, host) for host in wave.get("hosts") or []})
        wave_of.update(dict.fromkeys(wave.get("hosts") or [], wave["n"]))
    for event in _of(events, "step_started"):
        replica_of.setdefault(event["host"], event["host"])
    initially = tracker.initially_serving(plan)
    named = set(replica_of.values())
    rest = [name for name in [*initially, *(plan.get("skipped") or {})] if name not in named]
    replica_of.update({name: name for name in dict.fromkeys(rest)})
    return tuple(
        Row(
            host=host,
            replica=replica,
            wave=wave_of.get(host),
            serving=_serving(events, replica, replica in initially, last),
            steps=_steps(events, host, last),
            before=_fingerprint(events, host, 0),
            after=_fingerprint(events, host, -1),
        )
        for host, replica in replica_of.items()
    )


def _steps(events: Sequence[Event], host: str, last: float) -> tuple[Segment, ...]:
    found: list[Segment] = []
    begun: Event | None = None
    for event in events:
        if event.get("host") != host:
            continue
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


def _serving(events: Sequence[Event], replica: str, initially: bool, last: float) -> tuple[Segment, ...]:
    found: list[Segment] = []
    since = 0.0 if initially else None
    for event in _of(events, "serving"):
        if event.get("replica") != replica:
            continue
        if event["serving"] and since is None:
            since = float(event["elapsed"])
        elif not event["serving"] and since is not None:
            found.append(Segment("serving", "serving", since, float(event["elapsed"])))
            since = None
    if since is not None:
        found.append(Segment("serving", "serving", since, last, "serving"))
    return tuple(found)


def _fingerprint(events: Sequence[Event], host: str, which: int) -> Mapping[str, Any]:
    known = [event["fingerprint"] for event in _of(events, "versions") if event.get("host") == host]
    return known[which] if known else {}


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
