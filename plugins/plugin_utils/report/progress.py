"""What a worker tells the run's screen while its task goes on: a short line of JSON through a pipe that the fork inherits.

Where the stdout callback ``calm`` is not in use there is no pipe, and it is shown as plain text.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
from collections.abc import Iterator

from ansible.utils.display import Display

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import number, text

_LONGEST_NAME, _LONGEST_REASON = 60, 280
"""Characters. As JSON one may be 12 bytes, and a line stays below what a pipe takes in one piece (PIPE_BUF, 4096 bytes)."""
_READ_AT_ONCE = 1 << 16
_write_end: int | None = None


@dataclasses.dataclass(frozen=True)
class Progress:
    """A wait that goes on.

    Attributes:
        host: that waits.
        seconds: for how long by now.
        reason: what for, and who is missing.
    """

    host: str
    seconds: float
    reason: str


class Channel:
    """The reading end, in the controller's own process; one for a run."""

    def __init__(self) -> None:
        global _write_end
        self._read_end, _write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(_write_end, False)
        self._rest = b""

    def read(self) -> Iterator[Progress]:
        """All that has arrived."""
        while select.select([self._read_end], [], [], 0)[0]:
            arrived = os.read(self._read_end, _READ_AT_ONCE)
            if not arrived:
                return
            *lines, self._rest = (self._rest + arrived).split(b"\n")
            yield from filter(None, map(_parsed, lines))


def tell(host: str, seconds: float, reason: str) -> None:
    """Say that ``host`` waits, from any process of the run."""
    if _write_end is not None:
        line = json.dumps([host[:_LONGEST_NAME], round(seconds, 1), reason[:_LONGEST_REASON]]) + "\n"
        try:
            os.write(_write_end, line.encode("ascii"))
            return
        except OSError:  # full, or its reader is gone
            pass
    Display().display(f"{host}: waiting for {seconds:.0f} s: {reason}")


def _parsed(line: bytes) -> Progress | None:
    try:
        host, seconds, reason = json.loads(line)
    except (ValueError, TypeError):
        return None
    return Progress(text(host), number(seconds), text(reason))
