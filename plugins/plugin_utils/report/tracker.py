"""What a run does, told from its tasks and their results: notifications go in, journal events come out.

The convention that it reads is small. Tasks (or their block, include or play) carry ``vars: {lockstep_step: <step>}``,
with one of :data:`STEPS`, and may carry ``lockstep_wave: <n>``. Results may carry ``lockstep_plan`` (what the plan
action returns; its own result is known without that key), ``lockstep_event`` (an event, or a list of them), gate results
anywhere, and a ``fingerprint``.
Nothing here knows Ansible: names, dictionaries and a clock are enough.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Event = dict[str, Any]
Result = Mapping[str, Any]

STEPS = (
    "drain",
    "quarantine",
    "prepare",
    "driver",
    "runtime",
    "load",
    "gates",
    "ray",
    "wait",
    "serve",
    "prove",
    "admit",
    "bake",
    "restore",
)
BEFORE_WAVES = frozenset(("prepare",))
CAUSE_LENGTH = 4000
LOOK = "ansible-playbook playbooks/status.yml"
AGAIN = "the same command again: it goes on from here"
_NEXT = re.compile(r"\bNext: (.+)")
_DEPTH = 6
_NOT_NEWS = frozenset(("invocation", "ansible_facts", "diff", "state", "states", "stamps", "hosts", "survey"))


@dataclasses.dataclass
class _Step:
    name: str
    wave: int | None
    began: float
    ended: float
    outcome: str = "skipped"
    changed: bool = False


class Tracker:
    """The state of a run as its tasks tell it. Every method returns the events that follow, in order.

    Attributes:
        plan: what the plan action returned; empty until then.
        serving: replicas that answer requests, as far as the run has told.
        wave: number of the wave under way; None before the first.
        waves: number of waves planned.
        failed: whether something has failed and was not rescued without a trace.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, typical_wave: float | None = None) -> None:
        self._clock = clock
        self._start = clock()
        self._typical = typical_wave
        self._open: dict[str, _Step] = {}
        self._wave_of: dict[str, int] = {}
        self._replica_of: dict[str, str] = {}
        self._fingerprints: dict[str, Mapping[str, Any]] = {}
        self._gates: set[tuple[Any, ...]] = set()
        self._begun: list[float] = []
        self._wave_failed: float | None = None
        self._troubled: set[str] = set()
        self.plan: Mapping[str, Any] = {}
        self.serving: list[str] = []
        self.wave: int | None = None
        self.failed = False
        self.next = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return round(self._clock() - self._start, 3)

    @property
    def waves(self) -> int:
        return len(self.plan.get("waves") or [])

    def time_left(self) -> float | None:
        """Seconds until the last planned wave is over, estimated; None where there is nothing to go by."""
        if self.wave is None:
            return time_left(self.waves, [], 0.0, self._typical)
        lengths = [later - earlier for earlier, later in itertools.pairwise(self._begun)]
        if self._wave_failed is not None:
            # No further wave begins, and putting this one back takes it through the same stages again.
            return time_left(1, lengths, self.elapsed - self._wave_failed, self._typical)
        remaining = self.waves - len(self._begun)
        return time_left(remaining + 1, lengths, self.elapsed - self._begun[-1], self._typical)

    def task_starts(self, host: str, step: str | None, wave: int | None = None) -> list[Event]:
        """A task begins on ``host``; ``step`` is its ``lockstep_step``. One outside of any step ends the step before it."""
        if step is None:
            return self._close(host)
        number = wave if wave is not None or step in BEFORE_WAVES else self._wave_of.get(host)
        current = self._open.get(host)
        if current is not None and (current.name, current.wave) == (step, number):
            return []
        events = self._close(host)
        events += self._enter_wave(number)
        now = self.elapsed
        self._open[host] = _Step(step, number, now, now)
        events.append(_event("step_started", now, host=host, step=step, wave=number))
        if step in ("drain", "restore"):
            self._troubled.discard(self._replica_of.get(host, host))
        if step == "drain":
            events += self._serves(self._replica_of.get(host, host), False)
        return events

    def task_ends(self, host: str, task: str, outcome: str, result: Result) -> list[Event]:
        """A task ended on ``host``: ``ok``, ``changed``, ``skipped``, ``failed`` or ``unreachable``."""
        events = self._read(host, result)
        current = self._open.get(host)
        if current is not None:
            current.ended = self.elapsed
            if outcome in ("failed", "unreachable"):
                current.outcome = outcome
            elif outcome != "skipped" and current.outcome == "skipped":
                current.outcome = "ok"
            current.changed = current.changed or outcome == "changed"
        if outcome in ("failed", "unreachable"):
            self.failed = True
            self._troubled.add(self._replica_of.get(host, host))
            failure = _failure(host, task, outcome, result)
            self.next = failure["next"] or self.next
            step = current.name if current else None
            wave = current.wave if current else self._wave_of.get(host)
            events.append(_event("failed", self.elapsed, host=host, step=step, wave=wave, **failure))
            if self.wave is not None and self._wave_failed is None:
                self._wave_failed = self.elapsed
        return events

    def play_starts(self) -> list[Event]:
        """A play begins: no step reaches from one play into the next."""
        return [event for host in list(self._open) for event in self._close(host)]

    def ends(self, outcome: str, **facts: Any) -> list[Event]:
        """The run is over, as ``done``, ``failed``, ``refused``, ``nothing_to_do``, ``checked`` or ``interrupted``."""
        events = self.play_starts()
        if outcome in ("failed", "interrupted"):
            self.next = self.next or (LOOK if outcome == "failed" else AGAIN)
        if self.wave is not None:
            events.append(_event("wave_ended", self.elapsed, wave=self.wave))
        events.append(_event("run_ended", self.elapsed, outcome=outcome, next=self.next, **facts))
        return events

    def _close(self, host: str) -> list[Event]:
        step = self._open.pop(host, None)
        if step is None:
            return []
        ended = _event(
            "step_ended",
            self.elapsed,
            host=host,
            step=step.name,
            wave=step.wave,
            outcome=step.outcome,
            changed=step.changed,
            began=step.began,
            ended=step.ended,
        )
        replica = self._replica_of.get(host, host)
        admitted = step.name == "admit" and step.outcome == "ok" and replica not in self._troubled
        return [ended, *(self._serves(replica, True) if admitted else [])]

    def _enter_wave(self, number: int | None) -> list[Event]:
        if number is None or (self.wave is not None and number <= self.wave):
            return []
        now = self.elapsed
        events = [] if self.wave is None else [_event("wave_ended", now, wave=self.wave)]
        planned: Mapping[str, Any] = next(
            (wave for wave in self.plan.get("waves") or [] if wave.get("n") == number), {}
        )
        self.wave = number
        self._begun.append(now)
        replicas, hosts = list(planned.get("replicas") or []), list(planned.get("hosts") or [])
        events.append(_event("wave_started", now, wave=number, of=self.waves, replicas=replicas, hosts=hosts))
        return events

    def _serves(self, replica: str, serving: bool) -> list[Event]:
        if (replica in self.serving) == serving:
            return []
        if serving:
            self.serving.append(replica)
        else:
            self.serving.remove(replica)
        return [_event("serving", self.elapsed, replica=replica, serving=serving)]

    def _read(self, host: str, result: Result) -> list[Event]:
        events: list[Event] = []
        plan = _plan_in(result)
        if plan is not None:
            events += self._planned(plan)
        for told in _listed(result.get("lockstep_event")):
            events += self._told(host, told)
        for found in find(result, ("gate", "verdict")):
            # A stamp repeats its gates in short.
            identity = (host, found["gate"], found["verdict"], found.get("seconds"))
            if identity not in self._gates:
                self._gates.add(identity)
                gate = {**found, "host": found.get("host") or host, "on": host}
                events.append(_event("gate", self.elapsed, **gate))
        for name, fingerprint in fingerprints(host, result):
            if self._fingerprints.get(name) != fingerprint:
                self._fingerprints[name] = fingerprint
                events.append(_event("versions", self.elapsed, host=name, fingerprint=dict(fingerprint)))
        return events

    def _planned(self, plan: Mapping[str, Any]) -> list[Event]:
        if plan == self.plan:
            return []
        self.plan = plan
        self.serving = initially_serving(plan)
        for wave in plan.get("waves") or []:
            self._wave_of.update(dict.fromkeys(wave.get("hosts") or [], wave["n"]))
            self._replica_of.update(replicas_of(wave))
        kept = {key: plan.get(key) for key in ("run", "waves", "skipped", "refusals", "warnings", "wanted")}
        return [_event("planned", self.elapsed, **{key: value for key, value in kept.items() if value is not None})]

    def _told(self, host: str, told: Mapping[str, Any]) -> list[Event]:
        if told.get("event") == "serving":
            return self._serves(str(told.get("replica", self._replica_of.get(host, host))), bool(told.get("serving")))
        facts = {"host": host, **told}
        return [_event(str(facts.pop("event", "note")), self.elapsed, **facts)]


def _plan_in(result: Result) -> Mapping[str, Any] | None:
    plan = result.get("lockstep_plan")
    if isinstance(plan, Mapping):
        return plan
    return result if "refusals" in result and ("waves" in result or result["refusals"]) else None


def time_left(waves: int, lengths: Sequence[float], current: float, typical: float | None) -> float | None:
    """Seconds until ``waves`` waves are over, the first of which began ``current`` seconds ago.

    Args:
        waves: waves not yet over.
        lengths: seconds that each finished wave of this run took, pauses included.
        current: seconds since the wave under way began.
        typical: seconds that a wave took in an earlier run; used until this run has finished one.
    """
    if waves <= 0:
        return 0.0
    known = sum(lengths) / len(lengths) if lengths else typical
    return None if known is None else max(known - current, 0.0) + (waves - 1) * known


def initially_serving(plan: Mapping[str, Any]) -> list[str]:
    """The replicas that answered requests when the plan was made."""
    if isinstance(plan.get("serving"), Sequence):
        return [str(name) for name in plan["serving"]]
    first: Mapping[str, Any] = next(iter(plan.get("waves") or []), {})
    return [*(first.get("serving") or []), *(first.get("drained") or [])]


def replicas_of(wave: Mapping[str, Any]) -> dict[str, str]:
    """Host to replica, as far as a planned wave tells."""
    members = wave.get("members")
    if isinstance(members, Mapping):
        return {host: name for name, hosts in members.items() for host in hosts}
    names = wave.get("replicas") or []
    return dict.fromkeys(wave.get("hosts") or [], names[0]) if len(names) == 1 else {}


def find(value: Any, keys: tuple[str, ...], depth: int = _DEPTH) -> Iterator[Mapping[str, Any]]:
    """Every dictionary inside ``value`` that has all of ``keys``, to a bounded depth, but not what a survey found."""
    if depth < 0:
        return
    if isinstance(value, Mapping):
        if all(key in value for key in keys):
            yield value
            return
        for key, inner in value.items():
            if key not in _NOT_NEWS:
                yield from find(inner, keys, depth - 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from find(inner, keys, depth - 1)


def fingerprints(host: str, result: Result) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Hosts and their fingerprints in a result: its own, its state's, its new stamp's, or those of a survey of many."""
    for place in (result, result.get("state"), result.get("stamp")):
        if isinstance(place, Mapping) and _is_fingerprint(place.get("fingerprint")):
            yield host, place["fingerprint"]
    told = result.get("fingerprints")
    if isinstance(told, Mapping):
        yield from ((str(name), found) for name, found in told.items() if _is_fingerprint(found))
    for key in ("hosts", "survey", "states"):
        surveyed = result.get(key)
        if isinstance(surveyed, Mapping):
            for name, found in surveyed.items():
                state = found.get("state", found) if isinstance(found, Mapping) else None
                if isinstance(state, Mapping) and _is_fingerprint(state.get("fingerprint")):
                    yield str(name), state["fingerprint"]


def _is_fingerprint(value: Any) -> bool:
    return isinstance(value, Mapping) and "driver" in value


def _failure(host: str, task: str, outcome: str, result: Result) -> dict[str, Any]:
    gate = next((gate for gate in find(result, ("gate", "verdict")) if gate["verdict"] != "pass"), {})
    evidence = result.get("evidence") or gate.get("evidence") or []
    cause = _cause(result, gate)
    said = _NEXT.findall(cause)
    # A host that is gone cannot say what comes next, and a wave of which nobody is left has no last words of its own.
    comes_back = f"ansible {host} -m ansible.builtin.ping; once it answers, the same command again goes on from there"
    return {
        "task": task,
        "unreachable": outcome == "unreachable",
        "cause": cause[:CAUSE_LENGTH],
        "evidence": [str(path) for path in ([evidence] if isinstance(evidence, str) else evidence)],
        "next": str(
            result.get("next")
            or gate.get("next")
            or (said[-1] if said else comes_back if outcome == "unreachable" else "")
        ),
    }


def _cause(result: Result, gate: Mapping[str, Any]) -> str:
    said = result.get("cause") or gate.get("cause") or result.get("msg") or ""
    if not isinstance(said, str):
        said = json.dumps(said, default=str, ensure_ascii=False)
    items = [item for item in _listed(result.get("results")) if item.get("failed") or item.get("unreachable")]
    if items:
        return "\n".join(_cause(item, {}) for item in items)
    tail = str(result.get("stderr") or "").strip()
    if tail and "cause" not in result and tail not in said:
        said = f"{said}\n{tail[-CAUSE_LENGTH // 2 :]}"
    return said.strip() or "no reason was given"


def _listed(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        return [value]
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else []


def _event(event: str, elapsed: float, /, **facts: Any) -> Event:
    return {**facts, "event": event, "elapsed": elapsed}


def clock(seconds: float) -> str:
    """Seconds as people read them on a clock: ``3:07`` or ``1:02:09``."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def span(seconds: float) -> str:
    """A length of time in words: ``0.4 s``, ``41 s``, ``3 min 7 s``, ``14 min``, ``2 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def line(event: Mapping[str, Any], tracker: Tracker) -> str | None:
    """What a person who watches is told about an event, in one line; None where it says nothing new."""
    write = _LINES.get(str(event.get("event")))
    said = write(event, tracker) if write else None
    return None if said is None else f"{clock(event['elapsed']):>7}  {said}"


def _line_planned(event: Mapping[str, Any], tracker: Tracker) -> str | None:
    hosts = sum(len(wave.get("hosts") or []) for wave in event.get("waves") or [])
    if event.get("refusals"):
        return f"refused: {'; '.join(str(reason) for reason in event['refusals'])}"
    if not tracker.waves:
        return "nothing to do"
    return f"plan: {many(hosts, 'host')} in {many(tracker.waves, 'wave')}{_left(tracker)}"


def _line_wave(event: Mapping[str, Any], tracker: Tracker) -> str:
    hosts = f" ({', '.join(event['hosts'])})" if event.get("hosts") else ""
    names = f": {', '.join(event['replicas'])}{hosts}" if event.get("replicas") else ""
    return f"wave {event['wave']} of {tracker.waves or '?'}{names} begins{_left(tracker)}"


def _line_step(event: Mapping[str, Any], tracker: Tracker) -> str:
    return f"{_where(event, tracker)}{event['step']:<10} {_who_serves(tracker)}{_left(tracker)}".rstrip()


def _who_serves(tracker: Tracker) -> str:
    """Who answers requests; empty where no plan has told."""
    return f"serving: {', '.join(tracker.serving) or 'none'}" if tracker.plan else ""


def _line_gate(event: Mapping[str, Any], tracker: Tracker) -> str:
    ended = "passed" if event["verdict"] == "pass" else "FAILED" if event["verdict"] == "fail" else "TIMED OUT"
    cause = f": {_first_line(event['cause'])}" if event.get("cause") else ""
    return f"{_where(event, tracker)}gate {event['gate']} {ended} after {span(float(event.get('seconds') or 0))}{cause}"


def _line_failed(event: Mapping[str, Any], tracker: Tracker) -> str:
    what = "UNREACHABLE" if event.get("unreachable") else "FAILED"
    return f"{_where(event, tracker)}{what} at {event.get('step') or event['task']}: {_first_line(event.get('cause'))}"


def _line_serving(event: Mapping[str, Any], tracker: Tracker) -> str:
    does = "serves" if event["serving"] else "is taken from service"
    return f"{event['replica']} {does}; serving: {', '.join(tracker.serving) or 'none'}"


def _line_note(event: Mapping[str, Any], tracker: Tracker) -> str:
    return f"{_where(event, tracker)}{event.get('text', '')}"


def _line_ended(event: Mapping[str, Any], tracker: Tracker) -> str:
    following = f"; next: {event['next']}" if event.get("next") else ""
    return f"{str(event['outcome']).replace('_', ' ')} after {span(event['elapsed'])}{following}"


_LINES: dict[str, Callable[[Mapping[str, Any], Tracker], str | None]] = {
    "planned": _line_planned,
    "wave_started": _line_wave,
    "step_started": _line_step,
    "gate": _line_gate,
    "failed": _line_failed,
    "serving": _line_serving,
    "note": _line_note,
    "run_ended": _line_ended,
}


def _where(event: Mapping[str, Any], tracker: Tracker) -> str:
    wave = event.get("wave") or tracker.wave
    return f"wave {wave}/{tracker.waves or '?'}  {event['host']:<12} " if wave else f"{event['host']:<12} "


def _first_line(text: Any) -> str:
    return next(iter(str(text or "").splitlines()), "")


def _left(tracker: Tracker) -> str:
    left = tracker.time_left()
    return "" if not left else f" · about {span(left)} left"


def many(count: int, thing: str) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"
