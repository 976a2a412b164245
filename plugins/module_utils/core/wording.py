"""Times, numbers and texts as people read them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_COLOURS = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\))")
_LINE_ENDS = re.compile("\r\n?|[\u0085\u2028\u2029]")
# What moves a terminal's cursor, ends its lines, or turns the direction of what follows; and halves of characters.
_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_NUMBERED = re.compile(r"(.*?)(\d+)([^\d]*)")


def clock(seconds: float) -> str:
    """Seconds as on a clock: ``3:07`` or ``1:02:09``."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def span(seconds: float) -> str:
    """A length of time: ``0.4 s``, ``41 s``, ``3 min 7 s``, ``14 min``, ``2 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def names(all_of_them: Sequence[str], most: int = 8) -> str:
    """``a1, a2``; more than ``most`` as ranges, ``gpu[001-064]``; where there are too many of these, the first ones."""
    if len(all_of_them) <= most:
        return ", ".join(all_of_them)
    in_order = sorted(all_of_them, key=_by_number)
    shown = _ranges(in_order)
    if len(shown) <= most + 1:  # "and 1 others" is as long as its name
        return ", ".join(shown)
    return f"{', '.join(in_order[:most])} and {len(in_order) - most} others"


def _by_number(name: str) -> tuple[str, int, str]:
    """Sorts gpu2 before gpu10."""
    match = _NUMBERED.fullmatch(name)
    return (match[1], int(match[2]), match[3]) if match else (name, 0, "")


def _ranges(all_of_them: Sequence[str]) -> list[str]:
    """Names that differ by consecutive numbers of one width become one, as Slurm and ClusterShell write them."""
    parts = [match.groups() if (match := _NUMBERED.fullmatch(name)) else (name, "", "") for name in all_of_them]
    result: list[str] = []
    start = 0
    for here, (head, number, tail) in enumerate(parts):
        following = parts[here + 1] if here + 1 < len(parts) else ("", "", "")
        if number and following == (head, str(int(number) + 1).zfill(len(number)), tail):
            continue
        first = parts[start][1]
        result.append(f"{head}[{first}-{number}]{tail}" if start < here else f"{head}{number}{tail}")
        start = here + 1
    return result


def many(count: int, thing: str) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """``text`` as a terminal or a page may show it: lines end in ``\\n``, colours are left out, and every other character
    that is not to be seen, but tabs, is replaced."""
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub("\ufffd", _LINE_ENDS.sub("\n", _COLOURS.sub("", text)))


def with_port(address: str, port: object) -> str:
    """``10.0.0.11:8000``, and ``[fd00::11]:8000`` of IPv6."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
