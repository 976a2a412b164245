"""What tasks report and what the journal keeps, parsed once, into types, where it enters.

A result is read by its fields, never by its text: ``lockstep_plan``, ``gate`` (a gate's result), ``fingerprint``,
``evidence``, ``cause``, ``reasons``, ``next``, ``lockstep_event``. A message is for people alone.

A host's result speaks of that host alone, whatever it says. What concerns others (the plan, states of several hosts) is
taken from the actions that make it on the controller: :data:`PLANNERS`.
Whatever a result holds is parsed without an error: what is not of its type is left out.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from ansible_collections.lockstep.vllm.plugins.module_utils.admission.fingerprint import NOT_VERSIONS
from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import many, printable
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.engine_start import EngineStart
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import MOST_FIGURES, MOST_ITEMS, Given, read
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import mapping as _mapping
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import mappings as _mappings
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import plain as _plain
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import text as _text
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import texts as _texts
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.served import Completion, Endpoint

Event = dict[str, Any]
"""One line of the journal; docs/reference/journal.md lists the keys of each."""
Result = Given
TaskOutcome = Literal["ok", "changed", "skipped", "failed", "unreachable"]
RunOutcome = Literal[
    "done", "failed", "gates_failed", "refused", "nothing_to_do", "checked", "interrupted", "unfinished"
]
"""How a run ended; ``gates_failed`` where it did what it was to do, and a gate's last verdict is no pass; ``unfinished``
where its journal just stops."""
RUN_OUTCOMES: tuple[RunOutcome, ...] = get_args(RunOutcome)
Fingerprint = Given

PLANNERS = frozenset({"lockstep.vllm.plan"})
"""Actions whose plan is the run's; they speak of all hosts, each by its own answer."""
REPORTERS = PLANNERS | {"lockstep.vllm.fail", "lockstep.vllm.rollout_lock", "lockstep.vllm.rollout_request"}
"""Actions that run nothing but their own code on the controller: their words are Lockstep's."""

CAUSE_LENGTH = 4000
_COMMAND_LENGTH = 500
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
        endpoints: where clients reach what serves, the routers first.
        up_to_date: replicas that need nothing.
        answering: replicas that answered requests when the plan was made.
    """

    run: str = ""
    waves: tuple[PlannedWave, ...] = ()
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    refused: bool = False
    warnings: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    up_to_date: tuple[str, ...] = ()
    answering: tuple[str, ...] = ()

    @classmethod
    def parse(cls, plan: Given) -> RunPlan:
        """``lockstep_plan`` of the plan action's result, or a ``planned`` event."""
        out = plan.get("left_out")
        return read(
            cls,
            plan,
            waves=tuple(read(PlannedWave, wave) for wave in _mappings(plan.get("waves")) if "n" in wave),
            left_out=_texts(out.get("replicas") if isinstance(out, Mapping) else out),
        )

    def as_event(self, elapsed: float) -> Event:
        return event("planned", elapsed, **dataclasses.asdict(self))

    @property
    def serving(self) -> list[str]:
        """The replicas that answered requests when the plan was made, as far as it is known."""
        return [*self.waves[0].serving, *self.waves[0].drained] if self.waves else [*self.answering]


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
    measured: Given = dataclasses.field(default_factory=dict)
    floor: Given = dataclasses.field(default_factory=dict)
    backend: str = ""
    evidence: tuple[str, ...] = ()
    cause: str = ""
    next: str = ""
    warnings: tuple[str, ...] = ()
    elapsed: float = 0.0

    @classmethod
    def parse(cls, gate: Given, on: str = "") -> GateEvent:
        on = on or _text(gate.get("on")) or _text(gate.get("host"))
        return read(
            cls,
            gate,
            on=on,
            host=_text(gate.get("host")) or on,
            pair=_texts(gate.get("pair"))[:2],
            cause=_text(gate.get("cause"), CAUSE_LENGTH),
            next=command(gate.get("next")),
        )

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    def about(self, mates: Iterable[str]) -> GateEvent:
        """The same, saying nothing of any host but ``on`` and its ``mates``, the hosts of its replica."""
        known = {self.on, *mates}
        return dataclasses.replace(
            self,
            host=self.host if self.host in known else self.on,
            pair=self.pair if known.issuperset(self.pair) else (),
        )

    def as_event(self, elapsed: float) -> Event:
        return event("gate", elapsed, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class Failure:
    """A task that failed on a host, or a host that was gone.

    Attributes:
        next: the next command to type; empty where nothing but a message is known.
        refused: whether it is the controller's own refusal to begin, rather than something that went wrong.
        step, wave: what it belonged to, if anything.
        elapsed: seconds since the run began.
    """

    host: str
    task: str = ""
    unreachable: bool = False
    cause: str = ""
    evidence: tuple[str, ...] = ()
    next: str = ""
    refused: bool = False
    step: str | None = None
    wave: int | None = None
    elapsed: float = 0.0

    @classmethod
    def of_result(
        cls, host: str, task: str, unreachable: bool, result: Result, ours: bool = False, starts: Sequence[str] = ()
    ) -> Failure:
        """``ours``: the result is the controller's own; the next command of any other is taken only as one plain command.

        ``starts``: what the controller itself puts before such a command, so that it can be pasted.
        """
        items = _mappings(result.get("results"))
        parts = [item for item in items if item.get("failed") or item.get("unreachable")] or [result]
        gates = [_mapping(part.get("gate")) for part in parts]
        fields = [*parts, *gates]
        given = [part.get("next") for part in fields]
        following = next(filter(None, map(_text, given) if ours else (command(each, starts) for each in given)), "")
        if unreachable and not following:  # a host that is gone has no next command
            following = f"ansible {host} -m ansible.builtin.ping"
        return cls(
            host=host,
            task=task,
            unreachable=unreachable,
            cause=_whole_lines("\n".join(_cause(part, gate) for part, gate in zip(parts, gates, strict=True))).strip(),
            evidence=next((found for part in fields if (found := _texts(part.get("evidence")))), ()),
            next=following,
            refused=ours and result.get("refused") is True,
        )

    @classmethod
    def of_event(cls, event: Given) -> Failure:
        return read(cls, event, cause=_text(event.get("cause"), CAUSE_LENGTH))

    def as_event(self, elapsed: float) -> Event:
        return event("failed", elapsed, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class TaskReport:
    """One task's end on one host.

    Attributes:
        ours: whether its action runs nothing but its own code on the controller: it changes nothing that a run is for.
        plan: what the plan action planned; None in any other result.
        gates: results of gates, one per item where the task loops.
        fingerprints: host to what it runs, its own or those of all hosts of a plan.
        notes: ``lockstep_event``: what the host says of itself beyond that, for people.
        completion: what the host's engine generated to prove that it serves.
        start: how its engine came up the ladder, or did not.
        warnings: what Ansible shows as warnings of the task.
        conclusion: what the playbook itself says at its end, for people.
        failure: set where the task failed or the host was gone.
    """

    host: str
    task: str
    outcome: TaskOutcome
    ours: bool = False
    plan: RunPlan | None = None
    gates: tuple[GateEvent, ...] = ()
    fingerprints: Mapping[str, Fingerprint] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    completion: Completion | None = None
    start: EngineStart | None = None
    warnings: tuple[str, ...] = ()
    conclusion: str = ""
    failure: Failure | None = None

    @classmethod
    def parse(
        cls, host: str, task: str, outcome: TaskOutcome, result: Result, action: str = "", starts: Sequence[str] = ()
    ) -> TaskReport:
        """``action``: the full name of the task's action; what is not one of the controller's own speaks for ``host``.

        ``starts``: as in :meth:`Failure.of_result`.
        """
        parts = [result, *_mappings(result.get("results"))][: MOST_ITEMS + 1]
        failed = outcome in ("failed", "unreachable")
        ours = action in REPORTERS
        events = [extra for part in parts for extra in _mappings(part.get("lockstep_event"))][:MOST_ITEMS]
        plan = _mapping(result.get("lockstep_plan")) if action in PLANNERS else {}
        return cls(
            host=host,
            task=_text(task),
            outcome=outcome,
            ours=ours,
            plan=RunPlan.parse(plan) if plan else None,
            gates=tuple(
                GateEvent.parse(gate, host) for part in parts if "verdict" in (gate := _mapping(part.get("gate")))
            ),
            fingerprints={name: _fingerprint(each) for name, each in _fingerprints(host, result, action in PLANNERS)},
            notes=tuple(_text(each.get("text")) for each in events if each.get("event") == "note" and each.get("text")),
            completion=Completion.parse(_mapping(result.get("completion"))),
            start=EngineStart.parse(result),
            warnings=tuple(dict.fromkeys(text for part in parts for text in _texts(part.get("warnings"))))[
                :MOST_FIGURES
            ],
            failure=Failure.of_result(host, _text(task), outcome == "unreachable", result, ours, starts)
            if failed
            else None,
        )


def event(name: str, elapsed: float, /, **facts: Any) -> Event:
    return {**facts, "event": name, "elapsed": elapsed}


def of(events: Iterable[Given], name: str) -> list[Given]:
    """The events of one name, in order."""
    return [event for event in events if event.get("event") == name]


def command(value: Any, starts: Sequence[str] = ()) -> str:
    """A next command that a host named, where it is one plain command: what people paste must be what they read.

    One of ``starts``, the controller's own words, may stand before it.
    """
    text = value if isinstance(value, str) else ""
    own = text[len(next(filter(text.startswith, starts), "")) :]
    hidden = any(mark in own for mark in ("|", ";", "&", "`", "$(", "<", ">", "\n", "\r"))
    return "" if hidden or len(own) > _COMMAND_LENGTH or not own.isprintable() else text


def said(result: Result) -> str:
    """The text of a task that says something to people, its empty lines too."""
    given = result.get("msg")
    lines = given if isinstance(given, (list, tuple)) else (given,)
    return "\n".join(map(_text, lines[:MOST_ITEMS]))[:CAUSE_LENGTH]


def _fingerprint(given: Given) -> Fingerprint:
    """Versions alone: which machine and which cards these are tells no two alike hosts apart."""
    versions = ((name, value) for name, value in given.items() if name not in NOT_VERSIONS)
    few = itertools.islice(versions, MOST_FIGURES)
    return {_text(name): None if value is None else _text(value) for name, value in few}


def _fingerprints(host: str, result: Result, of_all: bool) -> Iterator[tuple[str, Fingerprint]]:
    """A host's own, its probe's or its new stamp's; with ``of_all`` the plan's."""
    for place in (result, _mapping(result.get("state")), _mapping(result.get("stamp"))):
        if fingerprint := _mapping(place.get("fingerprint")):
            yield host, fingerprint
    if not of_all:
        return
    for name, found in _mapping(result.get("fingerprints")).items():
        if fingerprint := _mapping(found):
            yield _text(name), fingerprint


def _whole_lines(text: str) -> str:
    """``text`` within CAUSE_LENGTH, cut where a line ends, with how many lines that left out."""
    if len(text) <= CAUSE_LENGTH:
        return text
    lines = text[:CAUSE_LENGTH].split("\n")[:-1]  # the line ends that are counted below, and no others
    rest = text.count("\n") + 1 - len(lines)
    return "\n".join([*lines, f"… and {many(rest, 'line')} more (with -v)"]) if lines else text[:CAUSE_LENGTH]


def _cause(result: Result, gate: Given) -> str:
    given = result.get("cause") or gate.get("cause") or result.get("msg") or ""
    message = given if isinstance(given, str) else json.dumps(_plain(given), ensure_ascii=False)
    if isinstance(result.get("reasons"), str):
        message = f"{message}\n{result['reasons']}"
    message = printable(_whole_lines(message))
    stderr = result.get("stderr")
    tail = printable(stderr[-CAUSE_LENGTH // 2 :]).strip() if isinstance(stderr, str) else ""
    if tail and "cause" not in result and tail not in message:
        message = f"{message}\n{tail}"
    return message.strip() or "no reason was given"
