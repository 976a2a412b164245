"""Packages that dpkg left half-way on a host, ours or not, and what a person types to have them finished.

apt and dpkg try every such package again whatever they are asked for, and report failure for it: then the exit status says
nothing about the packages that were asked for.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
from collections.abc import Sequence

from ..core.commands import Run, run_command
from . import dpkg

CONFIGURE = "sudo dpkg --configure -a"
COMPLETE = "sudo apt-get install -f"
_TO_CONFIGURE = ("half-configured", "triggers-awaited", "triggers-pending")


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """One package that is neither installed nor gone: its name, and dpkg's word for how it is."""

    package: str
    status: str


def parse(text: str) -> tuple[Unfinished, ...]:
    """From the lines of ``dpkg.QUERY``: ``want<TAB>status<TAB>package<TAB>version``, of every package of a host."""
    rows = [(line.split("\t") + [""] * 4)[:4] for line in text.splitlines()]
    return tuple(Unfinished(name.split(":")[0], status) for _want, status, name, _version in rows
                 if status in dpkg.INCOMPLETE)  # fmt: skip


def others(run: Run = run_command, deadline: float = 30.0) -> tuple[Unfinished, ...]:
    """Those of this host that are no part of a driver."""
    return tuple(each for each in parse(run(dpkg.QUERY, deadline).stdout) if not _is_the_drivers(each.package))


def cause(found: Sequence[Unfinished], host: str = "") -> str:
    """What is wrong, for people: which packages, where, and that the driver is not to blame."""
    listed = ", ".join(f"{each.package} ({each.status})" for each in found)
    belong = "a package that does not belong" if len(found) == 1 else "packages that do not belong"
    return f"dpkg cannot finish {belong} to the driver on {host or os.uname().nodename}: {listed}"


def remedy(found: Sequence[Unfinished]) -> str:
    """The command that finishes them, once what their scripts complain about is repaired: to be typed on their host."""
    return CONFIGURE if all(each.status in _TO_CONFIGURE for each in found) else COMPLETE


def _is_the_drivers(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in dpkg.PATTERNS) and not re.match(
        dpkg.NOT_THE_DRIVER, name
    )
