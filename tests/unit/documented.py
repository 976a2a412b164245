"""docs/reference/refusals.md lists what runs say of what cannot be: every message in it is held against what a test saw.

A test calls :func:`documented` with the case's name and what was said. ``…`` in a message of the page stands for anything.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/refusals.md"


@dataclasses.dataclass(frozen=True)
class Row:
    """A case of the page.

    Attributes:
        test: ``file::function`` that tries it, below tests/.
    """

    case: str
    command: str
    status: str
    message: str
    test: str


@functools.cache
def rows() -> tuple[Row, ...]:
    """The rows of all tables of the page that have a message."""
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and not set(cells[0]) <= {"-"} and cells[0] != "case":
            found.append(Row(*(cell.strip("`") for cell in cells)))
    return tuple(found)


def documented(case: str, said: str, status: int | None = None) -> None:
    """The page has this case, with the message that was ``said`` and, where it is known here, the exit status."""
    (row,) = [row for row in rows() if row.case == case] or [None]
    assert row is not None, f"{PAGE.name} has no row {case!r}, whose message is: {said}"
    plain, parts = " ".join(said.split()), [part.strip() for part in row.message.split("…")]
    assert re.search(".*".join(map(re.escape, parts)), plain), f"{PAGE.name}, {case}: {row.message}\nwas said: {plain}"
    assert status is None or row.status == str(status), f"{PAGE.name}, {case}: exit {row.status}, it was {status}"


def is_documented(case: str) -> bool:
    return any(row.case == case for row in rows())
