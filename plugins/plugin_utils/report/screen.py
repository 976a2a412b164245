"""A terminal with lines at its end that are redrawn. Whatever else is shown goes above them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence

_COLUMNS, _ROWS = 80, 24
_MOST_ROWS = 20


class Screen:
    """Standard output. The lines that are redrawn are written past Python's buffers, which a fork would copy.

    Attributes:
        redrawn: whether it is a terminal that can do that.
    """

    def __init__(self) -> None:
        self.redrawn = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._lines = 0

    def size(self) -> tuple[int, int]:
        """Columns and rows to draw in."""
        columns, rows = shutil.get_terminal_size((_COLUMNS, _ROWS))
        return columns, min(rows - 1, _MOST_ROWS)

    def draw(self, lines: Sequence[str]) -> None:
        """Put these lines in the place of those that were drawn before."""
        if not self.redrawn or not (lines or self._lines):
            return
        up = f"\x1b[{self._lines}A" if self._lines else ""
        text = f"{up}\r\x1b[J" + "".join(f"{line}\r\n" for line in lines)
        self._lines = len(lines)
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), text.encode("utf-8", "replace"))

    @contextlib.contextmanager
    def above(self) -> Iterator[None]:
        """What is written inside goes above the lines that are redrawn."""
        self.draw([])
        yield
