"""What tasks report and what the journal keeps, parsed once, into types, where it enters.

A result is read by its fields, never by its text: ``lockstep_plan``, ``gate`` (a gate's result), ``fingerprint``,
``evidence``, ``cause``, ``reasons``, ``next``, ``lockstep_event``. A message is for people alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

Event = dict[str, Any]
"""One line of the journal; docs/reference/journal.md lists the keys of each."""
Result = Mapping[str, Any]
TaskOutcome = Literal["ok", "changed", "skipped", "failed", "unreachable"]
RunOutcome = Literal["done", "failed", "refused", "nothing_to_do", "checked", "interrupted", "unfinished"]
"""How a run ended; ``unfinished`` where its journal just stops."""
RUN_OUTCOMES: tuple[RunOutcome, ...] = get_args(RunOutcome)
Fingerprint = Mapping[str, Any]

CAUSE_LENGTH = 4000
STATUS_COMMAND = "ansible-playbook playbooks/status.yml"
SAME_COMMAND = "the same command again: it goes on from here"


@dataclasses.dataclass(frozen=True)
class PlannedWave:
    """One wave of a plan, as module_utils/rollout/waves.py made it.

    Attributes:
        serving: the replicas that answer requests while it goes on.
        drained: the replicas of this wave that answer until it begins.
        members: replica to its hosts.
        reasons: host to why it is changed.
    """

    n: int
    replicas: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    serving: tuple[str, ...] = ()
    drained: tuple[str, ...] = ()
    members: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    reasons: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, wave: Mapping[str, Any]) -> PlannedWave:
        return cls(
            n=int(wave["n"]),
            replicas=_texts(wave.get("replicas")),
            hosts=_texts(wave.get("hosts")),
            serving=_texts(wave.get("serving")),
            drained=_texts(wave.get("drained")),
            members={str(name): _texts(hosts) for name, hosts in _mapping(wave.get("members")).items()},
            reasons={str(host): _texts(reasons) for host, reasons in _mapping(wave.get("reasons")).items()},
        )

    @property
    def replica_of(self) -> dict[str, str]:
        """Host to replica."""
        return {host: name for name, hosts in self.members.items() for host in hosts}


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """What a run will do.

    Attributes:
        skipped: replica that is in no wave to the reason: up to date, quarantined, outside of the limit.
        left_out: replicas of those that do not get what was asked for: the run ends in a failure.
        refused: whether the run does not begin; the failure of its task has the reasons.
    """

    run: str = ""
    waves: tuple[PlannedWave, ...] = ()
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    refused: bool = False
    warnings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, plan: Mapping[str, Any]) -> RunPlan:
        """``lockstep_plan`` of the plan action's result, or a ``planned`` event."""
        return cls(
            run=str(plan.get("run") or ""),
            waves=tuple(PlannedWave.parse(wave) for wave in _mappings(plan.get("waves")) if "n" in wave),
            skipped={str(name): str(why) for name, why in _mapping(plan.get("skipped")).items()},
            left_out=_texts(out.get("replicas") if isinstance(out := plan.get("left_out"), Mapping) else out),
            refused=plan.get("refused") is True,
            warnings=_texts(plan.get("warnings")),
        )

    def as_event(self, elapsed: float) -> Event:
        return event("planned", elapsed, **dataclasses.asdict(self))

    @property
    def serving(self) -> list[str]:
        """The replicas that answered requests when the plan was made, as far as it is known."""
        return [*self.waves[0].serving, *self.waves[0].drained] if self.waves else []


@dataclasses.dataclass(frozen=True)
class GateEvent:
    """A gate's result (module_utils/gates/result.py) and ``on``, the host that reported it."""

    gate: str
    verdict: str
    on: str
    host: str
    seconds: float = 0.0
    code: str = ""
    pair: tuple[str, ...] = ()
    measured: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    floor: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    backend: str = ""
    evidence: tuple[str, ...] = ()
    cause: str = ""
    next: str = ""
    warnings: tuple[str, ...] = ()
    elapsed: float = 0.0

    @classmethod
    def parse(cls, gate: Mapping[str, Any], on: str = "") -> GateEvent:
        on = on or str(gate.get("on") or gate.get("host") or "")
        return cls(
            gate=str(gate.get("gate") or ""),
            verdict=str(gate.get("verdict") or ""),
            on=on,
            host=str(gate.get("host") or on),
            seconds=_number(gate.get("seconds")),
            code=str(gate.get("code") or ""),
            pair=_texts(gate.get("pair")),
            measured=_mapping(gate.get("measured")),
            floor=_mapping(gate.get("floor")),
            backend=str(gate.get("backend") or ""),
            evidence=_texts(gate.get("evidence")),
            cause=str(gate.get("cause") or ""),
            next=str(gate.get("next") or ""),
            warnings=_texts(gate.get("warnings")),
            elapsed=_number(gate.get("elapsed")),
        )

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    def as_event(self, elapsed: float) -> Event:
        return event("gate", elapsed, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Failure:
    """A task that failed on a host, or a host that was gone.

    Attributes:
        next: the next command to type; empty where nothing but a message is known.
        step, wave: what it belonged to, if anything.
        elapsed: seconds since the run began.
    """

    host: str
    task: str = ""
    unreachable: bool = False
    cause: str = ""
    evidence: tuple[str, ...] = ()
    next: str = ""
    step: str | None = None
    wave: int | None = None
    elapsed: float = 0.0

    @classmethod
    def of_result(cls, host: str, task: str, unreachable: bool, result: Result) -> Failure:
        parts = _failed_items(result) or [result]
        gates = [_mapping(part.get("gate")) for part in parts]
        fields = [*parts, *gates]
        following = next((str(part["next"]) for part in fields if part.get("next")), "")
        if unreachable and not following:  # a host that is gone has no next command
            following = f"ansible {host} -m ansible.builtin.ping; once it answers, {SAME_COMMAND}"
        return cls(
            host=host,
            task=task,
            unreachable=unreachable,
            cause="\n".join(_cause(part, gate) for part, gate in zip(parts, gates, strict=True))[:CAUSE_LENGTH],
            evidence=next((found for part in fields if (found := _texts(part.get("evidence")))), ()),
            next=following,
        )

    @classmethod
    def of_event(cls, event: Mapping[str, Any]) -> Failure:
        wave = event.get("wave")
        return cls(
            host=str(event.get("host") or ""),
            task=str(event.get("task") or ""),
            unreachable=bool(event.get("unreachable")),
            cause=str(event.get("cause") or ""),
            evidence=_texts(event.get("evidence")),
            next=str(event.get("next") or ""),
            step=str(event["step"]) if event.get("step") else None,
            wave=wave if isinstance(wave, int) else None,
            elapsed=_number(event.get("elapsed")),
        )

    def as_event(self, elapsed: float) -> Event:
        return event("failed", elapsed, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class TaskReport:
    """One task's end on one host.

    Attributes:
        plan: what the plan action planned.
        gates: results of gates, one per item where the task loops.
        fingerprints: host to what it runs, its own or those of all hosts that were probed.
        extra: ``lockstep_event``: what a module reports beyond that.
        failure: set where the task failed or the host was gone.
    """

    host: str
    task: str
    outcome: TaskOutcome
    plan: RunPlan | None = None
    gates: tuple[GateEvent, ...] = ()
    fingerprints: Mapping[str, Fingerprint] = dataclasses.field(default_factory=dict)
    extra: tuple[Event, ...] = ()
    failure: Failure | None = None

    @classmethod
    def parse(cls, host: str, task: str, outcome: TaskOutcome, result: Result) -> TaskReport:
        parts = [result, *_mappings(result.get("results"))]
        failed = outcome in ("failed", "unreachable")
        return cls(
            host=host,
            task=task,
            outcome=outcome,
            plan=RunPlan.parse(plan) if (plan := _mapping(result.get("lockstep_plan"))) else None,
            gates=tuple(
                GateEvent.parse(gate, host) for part in parts if "verdict" in (gate := _mapping(part.get("gate")))
            ),
            fingerprints=dict(_fingerprints(host, result)),
            extra=tuple(dict(extra) for part in parts for extra in _mappings(part.get("lockstep_event"))),
            failure=Failure.of_result(host, task, outcome == "unreachable", result) if failed else None,
        )


def event(name: str, elapsed: float, /, **facts: Any) -> Event:
    return {**facts, "event": name, "elapsed": elapsed}


def of(events: Iterable[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """The events of one name, in order."""
    return [event for event in events if event.get("event") == name]


def _fingerprints(host: str, result: Result) -> Iterator[tuple[str, Fingerprint]]:
    """A host's own, its probe's or its new stamp's; the plan's; those of a probe of all hosts."""
    for place in (result, _mapping(result.get("state")), _mapping(result.get("stamp"))):
        if fingerprint := _mapping(place.get("fingerprint")):
            yield host, fingerprint
    for name, found in _mapping(result.get("fingerprints")).items():
        if fingerprint := _mapping(found):
            yield str(name), fingerprint
    for name, answer in _mapping(result.get("hosts")).items():
        if fingerprint := _mapping(_mapping(_mapping(answer).get("state")).get("fingerprint")):
            yield str(name), fingerprint


def _failed_items(result: Result) -> list[Mapping[str, Any]]:
    return [item for item in _mappings(result.get("results")) if item.get("failed") or item.get("unreachable")]


def _cause(result: Result, gate: Mapping[str, Any]) -> str:
    message = result.get("cause") or gate.get("cause") or result.get("msg") or ""
    if not isinstance(message, str):
        message = json.dumps(message, default=str, ensure_ascii=False)
    if isinstance(result.get("reasons"), str):
        message = f"{message}\n{result['reasons']}"
    tail = str(result.get("stderr") or "").strip()
    if tail and "cause" not in result and tail not in message:
        message = f"{message}\n{tail[-CAUSE_LENGTH // 2 :]}"
    return message.strip() or "no reason was given"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """A dictionary, or the dictionaries of a list."""
    if isinstance(value, Mapping):
        return [value]
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else []


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(str(item) for item in value) if isinstance(value, (list, tuple)) else ()


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
