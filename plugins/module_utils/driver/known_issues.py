"""Combinations of versions that are known, or suspected, to fail: which rows of data/known_issues.yml fit a host.

A row's ``when`` maps a fact to a condition; the row fits when every condition holds. A fact that is not known never
fits: nobody is refused for what nobody knows.

Conditions: ``"550.90.07"`` or ``"==550.90.07"`` exactly; ``">=2.28,<2.30.4"`` a range, all parts of which must hold;
``"!=driver"`` different from another fact; for ``gpu``, a word that its name contains.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]

FACTS = ("driver", "fabric_manager", "nccl", "cuda", "torch", "vllm", "kernel", "gpu")
SEVERITIES = ("suspect", "bad")
_COMPARE: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclasses.dataclass(frozen=True)
class Match:
    """A known issue that fits: ``suspect`` warns and makes the graph gate compulsory, ``bad`` refuses."""

    id: str
    severity: str
    effect: str
    cure: str
    source: str
    confidence: str

    def __str__(self) -> str:
        return f"{self.effect} ({self.id}: {self.severity}, {self.confidence} confidence; {self.source}). {self.cure}"


def match(issues: Sequence[Mapping[str, Any]], facts: Facts) -> list[Match]:
    """The issues that fit ``facts`` (driver, fabric_manager, nccl, cuda, torch, vllm, kernel, gpu), ``bad`` ones first.

    Raises:
        ValueError: a row names an unknown fact or a condition that cannot be read.
    """
    found = [
        Match(**{field.name: str(row[field.name]).strip() for field in dataclasses.fields(Match)})
        for row in issues
        if _fits(row, facts)
    ]
    return sorted(found, key=lambda issue: (SEVERITIES.index(issue.severity) * -1, issue.id))


def refusals(matches: Sequence[Match], allowed: Sequence[str]) -> list[Match]:
    """The matches that refuse: ``bad``, and not overridden by name."""
    return [issue for issue in matches if issue.severity == "bad" and issue.id not in allowed]


def _fits(row: Mapping[str, Any], facts: Facts) -> bool:
    if not row["when"]:
        raise ValueError(f"known issue {row['id']}: 'when' has no condition")
    return all(_holds(row["id"], fact, str(condition), facts) for fact, condition in row["when"].items())


def _holds(issue: str, fact: str, condition: str, facts: Facts) -> bool:
    if fact not in FACTS:
        raise ValueError(f"known issue {issue}: {fact!r} is not a fact; known: {', '.join(FACTS)}")
    actual = facts.get(fact)
    if actual is None:
        return False
    if fact == "gpu":
        return condition.lower() in str(actual).lower()
    return all(_part_holds(issue, str(actual), part.strip(), facts) for part in condition.split(","))


def _part_holds(issue: str, actual: str, part: str, facts: Facts) -> bool:
    found = re.fullmatch(r"(<=|>=|==|!=|<|>)?\s*([\w.+-]+)", part)
    if not found:
        raise ValueError(f"known issue {issue}: cannot read the condition {part!r}")
    wanted = found[2]
    if wanted in FACTS:
        if facts.get(wanted) is None:
            return False
        wanted = str(facts[wanted])
    return _COMPARE[found[1] or "=="](_key(actual), _key(wanted))


def _key(version: str) -> tuple[int, ...]:
    """Numbers of a version up to its local part, without trailing zeros: ``2.13.0+cu130`` → (2, 13)."""
    numbers = [int(part) for part in re.findall(r"\d+", version.split("+")[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
