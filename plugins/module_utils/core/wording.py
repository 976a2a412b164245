"""Times and numbers as people read them."""

from __future__ import annotations


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


def many(count: int, thing: str) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"
