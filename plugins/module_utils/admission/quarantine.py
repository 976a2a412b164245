"""Quarantine: the record that keeps a host out of Ray (what Kubernetes calls cordoned), by whom and why.

``/var/lib/lockstep/quarantine.json``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypedDict

from ..core.codes import Code
from ..core.records import RecordError


class QuarantineKind(Code):
    """Why a host may not join Ray (Kubernetes: the reason of a cordon)."""

    CHANGING = "changing"
    """A run works on it, or died while it did: every run completes it."""
    FAILED = "failed"
    """Its gates failed or it could not be rolled back: site.yml and an abort try again, a rollout skips it."""
    OPERATOR = "operator"
    """A person put it there: no run lifts it unless ``rollout_include_quarantined`` allows it."""


class Stored(TypedDict, total=False):
    """The record as it lies on the disk, which may be damaged."""

    kind: str | None
    reason: str | None
    owner: str | None
    run: str | None
    at: str | None


@dataclasses.dataclass(frozen=True)
class Quarantine:
    """The record: its kind (None where the record is damaged), why, who asked (``user@controller``), in which run, and
    since when (RFC 3339)."""

    kind: QuarantineKind | None
    reason: str
    owner: str | None = None
    run: str | None = None
    at: str | None = None

    def __str__(self) -> str:
        return f"{self.reason} (by {self.owner})" if self.owner else self.reason

    @classmethod
    def lenient(cls, stored: Mapping[str, object]) -> Quarantine:
        """The record where it is only reported, not decided by; what of it cannot be read is left out."""
        kind = next((kind for kind in QuarantineKind if kind == stored.get("kind")), None)
        reason = str(stored.get("reason") or stored.get("error") or "?")
        owner, run, at = (
            value if isinstance(value := stored.get(name), str) else None for name in ("owner", "run", "at")
        )
        return cls(kind, reason, owner, run, at)

    def as_dict(self) -> dict[str, str | None]:
        """As JSON holds it; a damaged record has the kind ``damaged``, which never lies on the disk."""
        return {**dataclasses.asdict(self), "kind": self.kind.value if self.kind else "damaged"}


def parse(stored: Mapping[str, Any] | None) -> Quarantine | None:
    """The record from JSON; None where the host is not in quarantine.

    Raises:
        RecordError: it has no reason, or its kind is unknown.
    """
    if stored is None:
        return None
    kind, reason = stored.get("kind"), stored.get("reason")
    if kind not in list(QuarantineKind) or not isinstance(reason, str):
        raise RecordError(f"quarantine: kind is {kind!r}, reason is {reason!r}")
    return Quarantine(QuarantineKind(kind), reason, stored.get("owner"), stored.get("run"), stored.get("at"))
