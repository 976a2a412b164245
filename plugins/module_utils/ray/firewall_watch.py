"""Keeps the packet filter loaded: ``python3 -m lockstep.ray.firewall_watch``, from ``lockstep-filter-watch.service``.

``systemctl restart nftables`` and ``nft flush ruleset`` take every table away, this one too. The kernel tells of each such
change (netlink), so the table is back within a second, and the watch costs nothing meanwhile. What else may change it (records,
the ports, the range of ports that the kernel hands out) is read every few seconds. Where no table can be loaded, Ray and vLLM
are stopped: they never run unfiltered for longer than ``GRACE``.
"""

from __future__ import annotations

import dataclasses
import enum
import select
import socket
import sys
import time
from collections.abc import Callable

from ..core import systemd
from ..core.commands import run_command
from . import firewall_live

PERIOD = 5.0
"""Seconds between two looks at what the rules are made from."""
SETTLE = 0.2
"""Seconds after a change in the kernel before it is looked at: rulesets are changed in many steps."""
GRACE = 5.0
"""Seconds that Ray and vLLM may run while no table can be loaded."""
STOPPED = ("lockstep-vllm.service", "lockstep-ray.service")

_NETLINK_NETFILTER = 12
_NFTABLES_GROUP = 1 << (7 - 1)  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h


class Act(enum.Enum):
    """What a look at the filter led to."""

    NOTHING = "nothing"
    LOADED = "loaded"
    TRY_AGAIN = "try_again"
    STOP_RAY = "stop_ray"


@dataclasses.dataclass(frozen=True)
class Sight:
    """What a look found.

    Attributes:
        difference: why the kernel's table is not the one to have; "" where it is.
        table: the one to have: made from the records, else the last that was loaded; None where there is neither.
        kept: it is the last that was loaded, as none can be made.
    """

    difference: str
    table: str | None
    kept: bool = False


def decide(sight: Sight, failing_for: float | None) -> Act:
    """What follows from a look and from trying to load what was missing.

    Args:
        failing_for: seconds since loading first failed; None where it was just done, or needless.
    """
    if not sight.difference:
        return Act.NOTHING
    if sight.table is None:
        return Act.STOP_RAY
    if failing_for is None:
        return Act.LOADED
    return Act.STOP_RAY if failing_for >= GRACE else Act.TRY_AGAIN


class Watch:
    """Looks and acts; keeps since when loading fails. ``say`` gets one line for each change."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._failing_since: float | None = None
        self._said: set[str] = set()

    def look(self) -> Act:
        """Look once, and act. Returns what that led to."""
        sight = self._sight()
        if not sight.difference:
            self._failing_since = None
            if not sight.kept:
                self._said.clear()
        elif sight.table is not None:
            self._load(sight.table, sight.difference)
        act = decide(sight, None if self._failing_since is None else self._clock() - self._failing_since)
        if act is Act.STOP_RAY:
            self._once(f"no table can be loaded ({sight.difference}): stopping Ray and vLLM")
            run_command(["systemctl", "stop", "--no-block", *STOPPED], firewall_live.DEADLINE)
        return act

    def _sight(self) -> Sight:
        kept = False
        try:
            table: str | None = firewall_live.wanted()
        except firewall_live.Unusable as error:
            self._once(f"the rules cannot be made ({error}); keeping the last ones")
            loaded, kept = firewall_live.last_loaded(), True
            table = loaded[0] if loaded else None
        try:
            difference = "nothing to load" if table is None else firewall_live.difference(table)
        except OSError as error:
            difference = str(error)
        return Sight(difference, table, kept)

    def _load(self, table: str, difference: str) -> None:
        try:
            firewall_live.load(table)
        except OSError as error:
            self._failing_since = self._clock() if self._failing_since is None else self._failing_since
            self._once(f"{difference}, and loading it fails: {error}")
        else:
            self._failing_since = None
            self._say(f"{difference}: loaded it again{self._ended()}")

    def _ended(self) -> str:
        try:
            ended = firewall_live.end_uninvited()
        except firewall_live.Unusable as error:
            return f"; what came in meanwhile could not be ended: {error}"
        return f"; ended {ended} connections that came in meanwhile" if ended else ""

    def _once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)


def main() -> int:
    """Watch for ever; ends with 0 where this host is to have no filter."""
    changes = _subscribe()
    watch = Watch(lambda line: print(line, flush=True))
    ready = False
    while firewall_live.SETTINGS.exists():
        act = watch.look()
        if not ready:
            systemd.notify(ready=True)
            ready = True
        systemd.notify(status="the packet filter is as wanted" if act is Act.NOTHING else f"last: {act.value}")
        _wait(changes, 1.0 if act is Act.TRY_AGAIN else PERIOD)
    systemd.notify(ready=True)
    return 0


def _subscribe() -> socket.socket:
    """A socket that becomes readable whenever the kernel's nftables change."""
    changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    changes.bind((0, _NFTABLES_GROUP))
    changes.setblocking(False)
    return changes


def _wait(changes: socket.socket, period: float) -> None:
    """Until the kernel tells of a change, at most ``period`` seconds; then until it has settled."""
    if select.select([changes], [], [], period)[0]:
        time.sleep(SETTLE)
        while _read(changes):
            pass


def _read(changes: socket.socket) -> bool:
    """Take one message; what it says does not matter. One that did not fit (ENOBUFS) is a change as well."""
    try:
        return bool(changes.recv(65536))
    except BlockingIOError:
        return False
    except OSError:
        return True


if __name__ == "__main__":
    sys.exit(main())
