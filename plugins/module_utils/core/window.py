"""A time of the day in which something may happen: a roll's maintenance window, an engine's move to a larger layout."""

from __future__ import annotations

import dataclasses
import datetime
import re

_WINDOW = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$")
_DAY = 24 * 60


@dataclasses.dataclass(frozen=True)
class Window:
    """A daily window in UTC, minutes of the day; it may cross midnight. Start included, end not."""

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """``HH:MM-HH:MM``.

        Raises:
            ValueError: it is none.
        """
        match = _WINDOW.match(text)
        if match is None:
            raise ValueError(f"window is {text!r}: expected HH:MM-HH:MM in UTC")
        hour, minute, end_hour, end_minute = (int(part) for part in match.groups())
        return cls(hour * 60 + minute, end_hour * 60 + end_minute)

    def is_open(self, now: datetime.datetime) -> bool:
        """Whether ``now`` lies in it; equal start and end mean the whole day."""
        return (_minute(now) - self.start) % _DAY < ((self.end - self.start) % _DAY or _DAY)

    def minutes_until_open(self, now: datetime.datetime) -> int:
        """Whole minutes; 0 while it is open."""
        return 0 if self.is_open(now) else (self.start - _minute(now)) % _DAY

    def __str__(self) -> str:
        clock = (f"{minutes // 60:02d}:{minutes % 60:02d}" for minutes in (self.start, self.end))
        return "-".join(clock)


def _minute(now: datetime.datetime) -> int:
    utc = now.astimezone(datetime.timezone.utc)
    return utc.hour * 60 + utc.minute
