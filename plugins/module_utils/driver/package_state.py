"""What dpkg left unfinished on a host, of whatever package: read from its status and from ``dpkg --audit``.

apt and dpkg try every such package again whatever they are asked for, and report failure for it: then the exit status says
nothing about the packages that were asked for.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
from collections.abc import Sequence

from ..core.codes import Code
from ..core.commands import Run, run_command
from . import dpkg

QUERY = ("dpkg-query", "-W", "-f", "${db:Status-Status}\t${db:Status-Eflag}\t${binary:Package}\t${Version}\n")


class Left(Code):
    """How dpkg left a package."""

    HALF_INSTALLED = "half_installed"  # its files are there in part, or it has to be installed again
    UNPACKED = "unpacked"
    HALF_CONFIGURED = "half_configured"
    TRIGGERS = "triggers"
    AUDIT = "audit"  # its status is whole, and dpkg --audit complains about it all the same


_STATUS = {
    "half-installed": Left.HALF_INSTALLED,
    "unpacked": Left.UNPACKED,
    "half-configured": Left.HALF_CONFIGURED,
    "triggers-awaited": Left.TRIGGERS,
    "triggers-pending": Left.TRIGGERS,
}


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """One package that dpkg left half-way."""

    name: str
    version: str
    left: Left
    ours: bool
    """Whether it is of the driver: the install repairs or replaces it."""


def is_driver_part(name: str) -> bool:
    """Whether a package is one of a driver, by its name (``:amd64`` may follow)."""
    plain = name.partition(":")[0]
    return any(fnmatch.fnmatchcase(plain, pattern) for pattern in dpkg.PATTERNS) and not re.match(
        dpkg.NOT_THE_DRIVER, plain
    )


def unfinished(run: Run = run_command, deadline: float = 30.0) -> tuple[Unfinished, ...]:
    """Every package that dpkg left half-way, by name."""
    return merge(parse_status(run(QUERY, deadline).stdout), parse_audit(run(["dpkg", "--audit"], deadline).stdout))


def others(run: Run = run_command, deadline: float = 30.0) -> tuple[Unfinished, ...]:
    """Those of this host that are no part of a driver, by their status alone."""
    return tuple(one for one in parse_status(run(QUERY, deadline).stdout).values() if not one.ours)


def cause(found: Sequence[Unfinished], host: str = "") -> str:
    """What is wrong, for people: which packages, where, and that the driver is not to blame."""
    listed = ", ".join(f"{one.name} ({one.left.replace('_', '-')})" for one in found)
    belong = "a package that does not belong" if len(found) == 1 else "packages that do not belong"
    return f"dpkg cannot finish {belong} to the driver on {host or os.uname().nodename}: {listed}"


def remedy(found: Sequence[Unfinished]) -> str:
    """The command that finishes them, once what their scripts complain about is repaired: to be typed on their host."""
    configured = all(one.left in (Left.HALF_CONFIGURED, Left.TRIGGERS) for one in found)
    return "sudo dpkg --configure -a" if configured else "sudo apt-get install -f"


def parse_status(text: str) -> dict[str, Unfinished]:
    """From the lines of ``QUERY``: ``status<TAB>error flag<TAB>package<TAB>version``."""
    found = {}
    for line in text.splitlines():
        status, flag, name, version = (line.split("\t") + [""] * 4)[:4]
        left = Left.HALF_INSTALLED if flag.strip() == "reinstreq" else _STATUS.get(status)
        if left:
            found[name] = Unfinished(name, version, left, is_driver_part(name))
    return found


def parse_audit(text: str) -> tuple[str, ...]:
    """The packages that ``dpkg --audit`` lists: one a line, each after one space, below what it says of them."""
    return tuple(
        dict.fromkeys(match.group(1) for line in text.splitlines() if (match := re.match(r"^ (\S+)(?:\s|$)", line)))
    )


def merge(status: dict[str, Unfinished], audited: Sequence[str]) -> tuple[Unfinished, ...]:
    """Both together; a name may carry its architecture in one of them."""
    known = {name.partition(":")[0] for name in status}
    rest = [name for name in audited if name.partition(":")[0] not in known]
    also = [Unfinished(name, "", Left.AUDIT, is_driver_part(name)) for name in rest]
    return tuple(sorted([*status.values(), *also], key=lambda one: one.name))
