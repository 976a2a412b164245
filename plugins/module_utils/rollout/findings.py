"""What a check of the plan found: it refuses the run, or only warns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ..core.stop import Stop


@dataclasses.dataclass(frozen=True)
class Finding:
    """Why a run must not begin, or, where it does not refuse, what the operator should know."""

    stop: Stop
    refuses: bool = True


def refuse(cause: str, next: str = "") -> Finding:
    return Finding(Stop(cause, next))


def warn(cause: str, next: str = "") -> Finding:
    return Finding(Stop(cause, next), refuses=False)


def refusals_and_warnings(found: Iterable[Finding]) -> tuple[list[Stop], list[Stop]]:
    """Refusals and warnings, each once."""
    once = list(dict.fromkeys(found))
    return [each.stop for each in once if each.refuses], [each.stop for each in once if not each.refuses]


def as_warnings(found: Iterable[Finding]) -> list[Finding]:
    """The same, for runs that a refusal would keep from repairing what it names."""
    return [dataclasses.replace(each, refuses=False) for each in found]
