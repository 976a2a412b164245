"""Reading vLLM's and Ray's logs: known lines become findings with a remediation.

The patterns are data (data/log_advice.yml, installed as /opt/lockstep/share/log_advice.json), each with its source and a
captured line.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

from ..core import causes, records
from .record import Finding


@dataclasses.dataclass(frozen=True)
class Pattern:
    """One known line.

    Attributes:
        id: its name, a few words with underscores.
        pattern: regular expression that finds the line.
        finding: what the line means; ``{name}`` takes a named group of the pattern.
        remediation: what to do about it.
        level: ``info``, ``warning`` or ``error``.
        source: where the text or its meaning is from.
        at_least: how often the line must occur to mean something.
    """

    id: str
    pattern: re.Pattern[str]
    finding: str
    remediation: str
    level: str
    source: str
    at_least: int = 1


class _Line(TypedDict):
    id: str
    pattern: str
    finding: str
    remediation: str
    level: str
    source: str


class Row(_Line, total=False):
    """One row of data/log_advice.yml, as far as it is read."""

    at_least: int


def patterns(rows: Iterable[Row]) -> tuple[Pattern, ...]:
    """Patterns from the rows of the data file.

    Raises:
        ValueError: a row lacks a key or its pattern is no regular expression; the message names the row.
    """
    found = []
    for row in rows:
        try:
            found.append(
                Pattern(
                    row["id"], re.compile(row["pattern"]), row["finding"], row["remediation"], row["level"], row["source"],
                    int(row.get("at_least", 1)),
                )
            )  # fmt: skip
        except (KeyError, re.error) as error:
            raise ValueError(f"log_advice row {row.get('id', row)!r}: {type(error).__name__}: {error}") from error
    return tuple(found)


def load(path: Path = records.SHARE / "log_advice.json") -> tuple[Pattern, ...]:
    """The patterns installed on this host; none where there is no file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    return patterns(rows["patterns"] if isinstance(rows, dict) else rows)


def read(lines: Iterable[str], known: Sequence[Pattern]) -> list[Finding]:
    """What the known patterns find in a log, worst first, each once with its count."""
    first: dict[str, tuple[str, re.Match[str]]] = {}
    counts: dict[str, int] = {}
    for line in map(causes.plain, lines):
        for pattern in known:
            match = pattern.pattern.search(line)
            if match:
                first.setdefault(pattern.id, (line, match))
                counts[pattern.id] = counts.get(pattern.id, 0) + 1
    found = [
        _finding(pattern, *first[pattern.id], counts[pattern.id])
        for pattern in known
        if counts.get(pattern.id, 0) >= pattern.at_least
    ]
    return sorted(found, key=lambda finding: ("error", "warning", "info").index(finding.level))


def _finding(pattern: Pattern, line: str, match: re.Match[str], count: int) -> Finding:
    return Finding(
        id=pattern.id,
        level=pattern.level,
        finding=_filled(pattern.finding, match),
        remediation=_filled(pattern.remediation, match),
        source=pattern.source,
        line=line.strip()[: causes.LONGEST],
        count=count,
    )


def _filled(text: str, match: re.Match[str]) -> str:
    for name, value in match.groupdict().items():
        text = text.replace("{" + name + "}", value or "")
    return text
