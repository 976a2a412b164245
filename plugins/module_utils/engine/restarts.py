"""Whether and when a failed engine starts again."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Restarts:
    """Bounds on starting again after a failure.

    Attributes:
        limit: failures in a row after which the supervisor gives up.
        backoff: seconds before the second restart; doubles with each further one. The first comes at once.
        longest: no pause is longer than this, in seconds.
        stable_seconds: an engine that served this many seconds wipes the count.
    """

    limit: int = 6
    backoff: float = 5.0
    longest: float = 120.0
    stable_seconds: float = 120.0


def failures_in_a_row(before: int, served_for: float, bounds: Restarts) -> int:
    """The count after one more failure of an engine that had served ``served_for`` seconds (0 when it never did)."""
    return 1 if served_for >= bounds.stable_seconds else before + 1


def pause_before_restart(failures: int, bounds: Restarts) -> float | None:
    """Seconds to wait after that many failures in a row; None when it is time to give up."""
    if failures >= bounds.limit:
        return None
    return 0.0 if failures <= 1 else min(bounds.backoff * 2.0 ** (failures - 2), bounds.longest)
