"""Combinations of versions that are known, or suspected, to fail: which rows of data/known_issues.yml fit a host.

A row's ``when`` maps a fact to a condition; the row fits when every condition holds. A fact that is not known never
fits: no host is refused for what is unknown. What a condition may be depends on the fact (:data:`FACTS`); a list of
conditions holds when one of them does.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, get_args

from ..core.codes import Code
from .cards import is_card
from .versions import release_key

Facts = Mapping[str, "str | None"]
Severity = Literal["suspect", "bad"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


class FactKind(Code):
    """How a fact is compared with a condition."""

    VERSION = "version"  # "550.90.07" exactly; ">=2.28,<2.30.4" a range, all of it; "!=driver" another fact
    NUMBER = "number"  # as a version, by its value
    WORD = "word"  # the same text
    MEMBER = "member"  # one of the fact's words, which commas part
    CARD = "card"  # whole words of a card's name (cards.py)


FACTS: Mapping[str, FactKind] = {
    **dict.fromkeys(
        ("driver", "fabric_manager", "nccl", "cuda", "torch", "vllm", "flashinfer", "kernel"), FactKind.VERSION
    ),
    "gpu": FactKind.CARD,
    "arch": FactKind.WORD,  # as uname -m has it
    "flavor": FactKind.WORD,  # of the kernel modules: open, proprietary
    "nccl_build_id": FactKind.WORD,
    "link": FactKind.MEMBER,  # efa, infiniband, roce (driver/links.py), nvlink, pcie
    "uptime_days": FactKind.NUMBER,
    "tensor_parallel_hosts": FactKind.NUMBER,  # over how many hosts one tensor parallel group goes
}
UPTIME = "uptime_days"
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
SECONDS_OF_A_DAY = 86400.0


@dataclasses.dataclass(frozen=True)
class Match:
    """A known issue that fits: ``suspect`` warns, ``bad`` refuses."""

    id: str
    severity: Severity
    effect: str
    remediation: str
    source: str
    confidence: str

    def __str__(self) -> str:
        return f"{self.effect} ({self.id}: {self.severity}, {self.confidence} confidence; {self.source}). {self.remediation}"


@dataclasses.dataclass(frozen=True)
class TimeBomb:
    """An issue that fits but for the host's uptime: it comes when the host has been up for ``at_days``.

    Attributes:
        days_left: until then; negative once it is past.
    """

    issue: Match
    at_days: float
    days_left: float

    def __str__(self) -> str:
        left = (
            f"in {self.days_left:.1f} days"
            if self.days_left > 0
            else f"since {-self.days_left:.1f} days it may come any moment"
        )
        return f"after {self.at_days:g} days of uptime, {left}: {self.issue}"


def facts(
    *,
    driver: str | None,
    fabric_manager: str | None,
    runtime: Mapping[str, str | None],
    kernel: str | None,
    gpus: Iterable[str],
    flavor: str | None = None,
    arch: str | None = None,
    links: Iterable[str] = (),
    uptime: float | None = None,
    tensor_parallel_hosts: int | None = None,
) -> Facts:
    """What known issues are matched against.

    Args:
        driver: the driver's version.
        fabric_manager: fabric manager's version.
        runtime: the serving environment, as ``runtime.state`` reads it or ``promised`` foresees it.
        kernel: the kernel's release.
        gpus: names of the GPUs.
        flavor: of the kernel modules.
        arch: of the machine, as ``uname -m`` has it.
        links: what joins its GPUs to each other and to those of other hosts.
        uptime: seconds since the host booted.
        tensor_parallel_hosts: over how many hosts one tensor parallel group goes.
    """
    return {
        "driver": driver,
        "fabric_manager": fabric_manager,
        "nccl": runtime.get("nccl"),
        "nccl_build_id": runtime.get("nccl_build_id"),
        "cuda": runtime.get("torch_cuda"),
        "torch": runtime.get("torch"),
        "vllm": runtime.get("vllm"),
        "flashinfer": runtime.get("flashinfer"),
        "kernel": kernel,
        "gpu": ", ".join(sorted(set(gpus))) or None,
        "flavor": flavor,
        "arch": arch,
        "link": ", ".join(sorted(set(links))) or None,
        UPTIME: None if uptime is None else str(uptime / SECONDS_OF_A_DAY),
        "tensor_parallel_hosts": None if tensor_parallel_hosts is None else str(tensor_parallel_hosts),
    }


class Issue(TypedDict):
    """One row of data/known_issues.yml; ``when`` has conditions by fact, all of which must hold, each one of a list."""

    id: str
    severity: str
    when: Mapping[str, str | Sequence[str]]
    effect: str
    remediation: str
    source: str
    confidence: str


def match(issues: Sequence[Issue], facts: Facts) -> list[Match]:
    """The issues that fit ``facts``, ``bad`` ones first.

    Raises:
        ValueError: a row names an unknown severity or fact, or a condition that cannot be read.
    """
    matches = [_match(row) for row in issues if _fits(row, facts)]
    return sorted(matches, key=lambda issue: (issue.severity != "bad", issue.id))


def time_bombs(issues: Sequence[Issue], facts: Facts) -> list[TimeBomb]:
    """The issues that come with the host's uptime, if all else of them fits; the next one first."""
    uptime = facts.get(UPTIME)
    if uptime is None:
        return []
    found = []
    for row in issues:
        if UPTIME in row["when"] and _fits(row, facts, but=UPTIME):
            at = _least_days(row)
            found.append(TimeBomb(_match(row), at, at - float(uptime)))
    return sorted(found, key=lambda bomb: bomb.days_left)


def _least_days(row: Issue) -> float:
    condition = str(row["when"][UPTIME])
    if not (found := re.fullmatch(r">=\s*(\d+(?:\.\d+)?)", condition)):
        raise ValueError(f"known issue {row['id']}: {UPTIME} is {condition!r}, expected >= and a number of days")
    return float(found[1])


def refusals(matches: Sequence[Match], allowed: Sequence[str]) -> list[Match]:
    """The matches that refuse: ``bad``, and not overridden by name."""
    return [issue for issue in matches if issue.severity == "bad" and issue.id not in allowed]


def _match(row: Issue) -> Match:
    text = {field.name: str(row.get(field.name)).strip() for field in dataclasses.fields(Match)}
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


def _fits(row: Issue, facts: Facts, but: str = "") -> bool:
    if not row["when"]:
        raise ValueError(f"known issue {row['id']}: 'when' has no condition")
    return all(
        any(_holds(row["id"], fact, str(one), facts) for one in (given if isinstance(given, list) else [given]))
        for fact, given in row["when"].items()
        if fact != but
    )


def _holds(issue: str, fact: str, condition: str, facts: Facts) -> bool:
    if fact not in FACTS:
        raise ValueError(f"known issue {issue}: {fact!r} is not a fact; known: {', '.join(FACTS)}")
    actual = facts.get(fact)
    if actual is None:
        return False
    kind = FACTS[fact]
    if kind is FactKind.CARD:
        return is_card(condition, actual)
    if kind is FactKind.WORD:
        return actual == condition
    if kind is FactKind.MEMBER:
        return condition in re.split(r", *", actual)
    return all(_part_holds(issue, kind, actual, part.strip(), facts) for part in condition.split(","))


def _part_holds(issue: str, kind: FactKind, actual: str, part: str, facts: Facts) -> bool:
    condition = re.fullmatch(r"(<=|>=|==|!=|<|>)?\s*([\w.+~-]+)", part)
    if not condition:
        raise ValueError(f"known issue {issue}: cannot read the condition {part!r}")
    written: str = condition[2]
    operand = facts.get(written) if written in FACTS else written
    if operand is None:
        return False
    compare = _COMPARE[condition[1] or "=="]
    if kind is FactKind.NUMBER:
        return compare(float(actual), float(operand))
    return compare(release_key(actual), release_key(operand))
