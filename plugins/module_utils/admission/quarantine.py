"""Quarantine: the record that keeps a host out of Ray (what Kubernetes calls cordoned), by whom and why.

``/var/lib/lockstep/quarantine.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast, get_args

from ..core.records import RecordError

Kind = Literal["changing", "failed", "operator", "damaged"]
"""``changing`` while a run works on the host, which the next run completes; ``failed`` when its gates failed; ``operator``
when a person asked for it, which no run lifts by itself; ``damaged`` where the record cannot be read (never on the disk)."""
KINDS: tuple[Kind, ...] = ("changing", "failed", "operator")


class Quarantine(TypedDict):
    """The record: its kind, why, who asked (``user@controller``), in which run, and since when (RFC 3339)."""

    kind: Kind
    reason: str
    owner: str | None
    run: str | None
    at: str | None


def parse(stored: Mapping[str, Any] | None) -> Quarantine | None:
    """The record from JSON; None where the host is not in quarantine.

    Raises:
        RecordError: it has no reason, or its kind is unknown.
    """
    if stored is None:
        return None
    if stored.get("kind") not in get_args(Kind) or not isinstance(stored.get("reason"), str):
        raise RecordError(f"quarantine: kind is {stored.get('kind')!r}, reason is {stored.get('reason')!r}")
    return cast(Quarantine, {name: stored.get(name) for name in ("kind", "reason", "owner", "run", "at")})


def damaged(reason: str) -> Quarantine:
    """In place of a record that cannot be read: the host stays out."""
    return {"kind": "damaged", "reason": reason, "owner": None, "run": None, "at": None}
