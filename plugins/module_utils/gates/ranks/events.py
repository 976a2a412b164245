"""What ranks report while they work: one JSON object a line on standard output, parsed once, here.

Lines are written whole, so that what happened up to a hang can be read afterwards.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from ...core import typed, untrusted

Phase = Literal["load", "init", "local", "check", "busbw", "eager", "capture", "replay", "release", "end"]
ErrorCode = Literal["own", "peer_lost"]
"""Whether a rank failed by itself, or because the connection to a peer broke."""


@dataclasses.dataclass(frozen=True)
class Event:
    """What every event carries: who reports it."""

    rank: int
    host: str


@dataclasses.dataclass(frozen=True)
class Started(Event):
    """Torch is loaded. The first rank of a host reports what traffic crosses: ``local_link``, ``network_link``."""

    backend: str
    device: str
    nccl: str | None = None
    torch: str | None = None
    cuda: str | None = None
    local_link: str | None = None
    network_link: str | None = None


@dataclasses.dataclass(frozen=True)
class Step(Event):
    """What a rank does now, since Unix time ``at``. All ranks take the same numbered steps.

    ``waiting``: its own share is done and it waits for the others. ``part``: the part of the job that it belongs to, by name;
    empty before the first.
    """

    step: int
    phase: Phase
    what: str
    waiting: bool
    at: float
    part: str = ""


@dataclasses.dataclass(frozen=True)
class Error(Event):
    """An exception ended the rank. ``exception`` is its class."""

    step: int
    phase: Phase
    what: str
    code: ErrorCode
    exception: str
    message: str
    at: float


@dataclasses.dataclass(frozen=True)
class Ended(Event):
    """A rank's exit status, reported by its parent; negative for a signal."""

    status: int
    at: float


@dataclasses.dataclass(frozen=True)
class LocalGemm(Event):
    """Wrong elements of a local integer matrix product."""

    wrong: int


@dataclasses.dataclass(frozen=True)
class Check(Event):
    """Wrong elements of one collective; of the first one its index, value and expected value.

    ``from_ranks``: ranks whose blocks arrived wrong, where the collective shows them.
    """

    operation: str
    dtype: str
    bytes: int
    wrong: int
    index: int | None = None
    observed: float | None = None
    expected: float | None = None
    from_ranks: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Busbw(Event):
    """Mean seconds of one call, and of its part before the call returned to the host. ``bytes`` as nccl-tests counts."""

    operation: str
    bytes: int
    seconds: float
    issue_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Eager(Event):
    """Eager against the rank's own arithmetic without collectives; deviations are relative to the largest value."""

    what: str
    batch: int
    deviation: float
    tolerance: float
    wrong: bool
    seconds: float


@dataclasses.dataclass(frozen=True)
class Capture(Event):
    """One graph captured."""

    what: str
    mode: str
    batch: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Replay(Event):
    """Replays against eager. ``seconds`` and ``eager_seconds`` are of one pass."""

    what: str
    mode: str
    replays: int
    deviation: float
    tolerance: float
    wrong: bool
    seconds: float
    eager_seconds: float


@dataclasses.dataclass(frozen=True)
class Skipped(Event):
    """A kernel was not tried, and why."""

    what: str
    reason: str


E = TypeVar("E", bound=Event)

_KINDS: dict[str, type[Event]] = {
    "start": Started,
    "step": Step,
    "error": Error,
    "end": Ended,
    "local": LocalGemm,
    "check": Check,
    "busbw": Busbw,
    "eager": Eager,
    "capture": Capture,
    "replay": Replay,
    "skipped": Skipped,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_record(event: Event) -> dict[str, Any]:
    """JSON-ready form of an event; ``event`` names its kind."""
    return {"event": _NAMES[type(event)], **dataclasses.asdict(event)}


def from_record(record: Mapping[str, Any]) -> Event:
    """An event from its ``to_record``.

    Raises:
        ValueError: it is no event, or lacks a field or has one too many.
    """
    kind = _KINDS.get(str(record.get("event")))
    if kind is None:
        raise ValueError(f"{record.get('event')!r:.60} is no event of a rank")
    try:
        return typed.parse(kind, {name: value for name, value in record.items() if name != "event"})
    except typed.BadAnswer as error:
        raise ValueError(f"event {record['event']}: {error}") from error


def line(event: Event) -> bytes:
    """The line that stands for an event."""
    return json.dumps(to_record(event)).encode() + b"\n"


def parse(text: str) -> list[Event]:
    """The events among the lines of ``text``; lines of other programs, and torn ones, are passed over."""
    events = []
    for candidate in text.splitlines():
        if candidate.startswith('{"event":'):
            try:
                events.append(from_record(untrusted.parse_json(candidate, finite=False)))
            except ValueError:
                continue
    return events
