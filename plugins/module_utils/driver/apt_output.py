"""What apt-get said, parsed once: what it would do, what it cannot satisfy, and why it refuses."""

from __future__ import annotations

import dataclasses
import re

from ..core.codes import Code
from . import package_causes

_INSTALL = re.compile(r"^Inst (\S+)(?: \[([^\]]*)\])? \((\S+)")
_REMOVE = re.compile(r"^Remv (\S+)")


class AptFault(Code):
    """Why apt-get gave up, of the kinds that call for different work."""

    SIGNED_BY = "signed_by"  # two descriptions of one repository contradict each other
    SOURCES = "sources"  # a description cannot be read
    SIGNATURE = "signature"  # a repository's signature is missing or not accepted
    UNREACHABLE = "unreachable"
    UNKNOWN_PACKAGE = "unknown_package"
    REINSTALL = "reinstall"  # a package is half-installed
    UNMET = "unmet"
    OTHER = "other"


_FAULTS = (
    (AptFault.SIGNED_BY, r"Conflicting values set for option"),
    (AptFault.SIGNATURE, r"is not signed|NO_PUBKEY|signature verification failed|signatures were invalid|not bound"),
    (AptFault.SOURCES, r"list of sources could not be read|Malformed (entry|line|stanza)"),
    (AptFault.UNREACHABLE, r"Failed to fetch|Could not (resolve|connect)|does not have a Release file"),
    (AptFault.UNKNOWN_PACKAGE, r"Unable to locate package|Version '.*' for '.*' was not found|has no installation candidate"),
    (AptFault.REINSTALL, r"needs to be reinstalled"),
    (AptFault.UNMET, r"Unable to correct problems|Unmet dependencies|Resolve generated breaks|Unable to satisfy"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Install:
    """A package that apt would install; ``old`` is the version that is there now, or None."""

    name: str
    old: str | None
    new: str


@dataclasses.dataclass(frozen=True)
class AptAnswer:
    """What one apt-get said.

    Attributes:
        ok: whether it would do, or did, what was asked.
        installs, removes: what it would do (``-s``).
        unmet: whether something stands under "unmet dependencies".
        fault: why it gave up; None where it did not.
        said: the causes that it names.
    """

    ok: bool
    installs: tuple[Install, ...] = ()
    removes: tuple[str, ...] = ()
    unmet: bool = False
    fault: AptFault | None = None
    said: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Why it gave up."""
        return "; ".join(self.said) or "apt-get gave no reason"


def parse(ok: bool, text: str) -> AptAnswer:
    """Read the output (standard output and errors, in any order) of an ``apt-get`` that ended well or did not."""
    lines = text.splitlines()
    installs = tuple(Install(*match.groups()) for line in lines if (match := _INSTALL.match(line)))
    removes = tuple(match.group(1) for line in lines if (match := _REMOVE.match(line)))
    if ok:
        return AptAnswer(True, installs, removes)
    marked = [line for line in lines if line.startswith(("E: ", "W: "))]
    said = tuple(cause.text for cause in package_causes.of_packages(text))
    return AptAnswer(False, installs, removes, bool(package_causes.unmet(lines)), _fault(marked), said)


def _fault(lines: list[str]) -> AptFault:
    return next(
        (fault for fault, pattern in _FAULTS if any(re.search(pattern, line) for line in lines)), AptFault.OTHER
    )
