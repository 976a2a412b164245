"""The one door for a probe's answer: what a host says of itself, looked at before a plan or a status reads it.

A part that is not what probe.py returns becomes ``Unread``, as one that the host could not read: the rest of the host is
still seen, and so are all other hosts. What depends on no part (a fingerprint) makes the whole answer a bad one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypedDict, cast

from ..admission import quarantine
from ..admission.stamps import HostStamp, ReplicaStamp
from ..core import previous_settings, typed
from ..core.host_record import HostRecord
from ..core.lock_record import Lock, Requested
from ..driver.change_record import StoredRecord
from ..driver.state import FullDriverState
from ..engine.record import EngineState
from ..ray import firewall_live, gcs, tunnel_live
from . import state


class _Whole(TypedDict):
    """What makes an answer one of a probe."""

    schema: int
    clock: float
    fingerprint: dict[str, str | None]
    fingerprint_digest: str


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of an answer: its type, and whether one that lacks keys is still of use."""

    kind: Any
    strictness: typed.Strictness = typed.PARTIAL


PARTS: Mapping[str, Part] = {
    "os": Part(state.System),
    "boot": Part(state.Boot),
    "driver": Part(FullDriverState),
    "runtime": Part(dict[str, str | None]),
    "units": Part(dict[str, state.Unit]),
    "host": Part(HostRecord | None),
    "quarantine": Part(quarantine.Stored | None),
    "change": Part(StoredRecord | None, typed.NEWER),
    "previous": Part(previous_settings.Summary | None),
    "engine": Part(EngineState | None),
    "lock": Part(Lock | None),
    "request": Part(Requested | None),
    "manifest": Part(dict[str, state.Manifest]),
    "disk_free_mib": Part(dict[str, int]),
    "networks": Part(dict[str, list[state.Network]], typed.NEWER),
    "machine": Part(state.Machine),
    "filter": Part(firewall_live.State),
    "tunnel": Part(tunnel_live.State),
    "preflight": Part(state.Preflight, typed.NEWER),
    "ray": Part(gcs.Summary, typed.NEWER),
    "router": Part(state.Router),
}
"""The parts of an answer that may each be ``Unread``."""
_STAMPS = {"host": Part(HostStamp | None), "replica": Part(ReplicaStamp | None)}


def read(answer: Any) -> state.HostState:
    """The state of a host, from what its probe answered. Parts that it lacks are missing here too.

    Raises:
        BadAnswer: it is no answer of a probe at all.
    """
    typed.parse(_Whole, answer, typed.PARTIAL)
    found = {name: _part(name, part, answer[name]) for name, part in PARTS.items() if name in answer}
    if "stamps" in answer:
        stamps = answer["stamps"]
        found["stamps"] = (
            {kind: _part(f"stamps.{kind}", part, stamps.get(kind)) for kind, part in _STAMPS.items()}
            if isinstance(stamps, Mapping)
            else {kind: {"error": f"stamps.{kind} cannot be found"} for kind in _STAMPS}
        )
    return cast(state.HostState, {**answer, **found})


def part(answer: Any, name: str) -> Mapping[str, Any]:
    """One part of a state that has not been looked at; empty where it is missing, null, unread or not what it should be."""
    found = part_or_error(answer, name)
    return {} if found.get("error") else found


def part_or_error(answer: Any, name: str) -> Mapping[str, Any]:
    """The same, but ``error`` alone where the part is unread or not what it should be."""
    value = answer.get(name) if isinstance(answer, Mapping) else None
    found: Mapping[str, object] = {} if value is None else _part(name, PARTS[name], value)
    return found


def _part(name: str, part: Part, value: Any) -> Any:
    """The part as it is, or why it cannot be used."""
    unread = isinstance(value, Mapping) and set(value) == {"error"}
    try:
        if unread or (isinstance(value, Mapping) and value.get("error") is not None):
            typed.parse(state.Unread, value, typed.NEWER)
        if not unread:
            typed.parse(part.kind, value, part.strictness)
    except typed.BadAnswer as error:
        return {"error": str(error.within(name))}
    return value
