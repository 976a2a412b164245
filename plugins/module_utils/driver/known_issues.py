"""Combinations of versions that are known, or suspected, to fail: which rows of data/known_issues.yml fit a host.

A row's ``when`` maps a fact to a condition; the row fits when every condition holds. A fact that is not known never
fits: no host is refused for what is unknown.

Conditions: ``"550.90.07"`` or ``"==550.90.07"`` exactly; ``">=2.28,<2.30.4"`` a range, all parts of which must hold;
``"!=driver"`` different from another fact; for ``gpu``, whole words of its name (cards.py).
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from .cards import is_card
from .versions import release_key

Facts = Mapping[str, "str | None"]
Severity = Literal["suspect", "bad"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)

FACTS = ("driver", "fabric_manager", "nccl", "cuda", "torch", "vllm", "kernel", "gpu")
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
    severity: Severity
    effect: str
    remediation: str
    source: str
    confidence: str

    def __str__(self) -> str:
        return f"{self.effect} ({self.id}: {self.severity}, {self.confidence} confidence; {self.source}). {self.remediation}"


def facts(
    *,
    driver: str | None,
    fabric_manager: str | None,
    runtime: Mapping[str, str | None],
    kernel: str | None,
    gpus: Iterable[str],
) -> Facts:
    """What known issues are matched against.

    Args:
        driver: the driver's version.
        fabric_manager: fabric manager's version.
        runtime: the serving environment, as ``runtime.state`` reads it or ``promised`` foresees it.
        kernel: the kernel's release.
        gpus: names of the GPUs.
    """
    return {
        "driver": driver,
        "fabric_manager": fabric_manager,
        "nccl": runtime.get("nccl"),
        "cuda": runtime.get("torch_cuda"),
        "torch": runtime.get("torch"),
        "vllm": runtime.get("vllm"),
        "kernel": kernel,
        "gpu": ", ".join(sorted(set(gpus))) or None,
    }


def match(issues: Sequence[Mapping[str, Any]], facts: Facts) -> list[Match]:
    """The issues that fit ``facts`` (driver, fabric_manager, nccl, cuda, torch, vllm, kernel, gpu), ``bad`` ones first.

    Raises:
        ValueError: a row names an unknown severity or fact, or a condition that cannot be read.
    """
    matches = [_match(row) for row in issues if _fits(row, facts)]
    return sorted(matches, key=lambda issue: (issue.severity != "bad", issue.id))


def refusals(matches: Sequence[Match], allowed: Sequence[str]) -> list[Match]:
    """The matches that refuse: ``bad``, and not overridden by name."""
    return [issue for issue in matches if issue.severity == "bad" and issue.id not in allowed]


def _match(row: Mapping[str, Any]) -> Match:
    text = {field.name: str(row[field.name]).strip() for field in dataclasses.fields(Match)}
    if text["severity"] not in SEVERITIES:
        raise ValueError(f"known issue {text['id']}: severity {text['severity']!r} is none of {', '.join(SEVERITIES)}")
    return Match(
        text["id"],
        text["severity"],
        text["effect"],
        text["remediation"],
        text["source"],
        text["confidence"],
    )


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
        return is_card(condition, str(actual))
    return all(_part_holds(issue, str(actual), part.strip(), facts) for part in condition.split(","))


def _part_holds(issue: str, actual: str, part: str, facts: Facts) -> bool:
    condition = re.fullmatch(r"(<=|>=|==|!=|<|>)?\s*([\w.+-]+)", part)
    if not condition:
        raise ValueError(f"known issue {issue}: cannot read the condition {part!r}")
    operand: str | None = condition[2]
    if operand in FACTS:
        operand = facts.get(operand)
    return operand is not None and _COMPARE[condition[1] or "=="](release_key(actual), release_key(operand))
