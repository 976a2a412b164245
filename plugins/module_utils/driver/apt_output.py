"""What apt-get said, parsed once: what it would do, what it cannot satisfy, and why it refuses."""

from __future__ import annotations

import dataclasses
import re

from ..core.codes import Code

_INSTALL = re.compile(r"^Inst (\S+)(?: \[([^\]]*)\])? \((\S+)")
_REMOVE = re.compile(r"^Remv (\S+)")
_UNMET = "The following packages have unmet dependencies:"
_ENTRY = re.compile(r"^ (\S+) : (\S.*)$")


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
class Unmet:
    """One package whose dependencies cannot be satisfied, with apt's lines about it."""

    package: str
    relations: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.package}: {'; '.join(self.relations)}"


@dataclasses.dataclass(frozen=True)
class AptAnswer:
    """What one apt-get said.

    Attributes:
        ok: whether it would do, or did, what was asked.
        installs, removes: what it would do (``-s``).
        unmet: what stands under "unmet dependencies".
        fault: why it gave up; None where it did not.
        said: its own error lines, and the warnings that explain them.
    """

    ok: bool
    installs: tuple[Install, ...] = ()
    removes: tuple[str, ...] = ()
    unmet: tuple[Unmet, ...] = ()
    fault: AptFault | None = None
    said: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Why it gave up: what cannot be satisfied where it says so, else its own error lines."""
        return "; ".join(map(str, self.unmet)) or "; ".join(self.said) or "apt-get gave no reason"


def parse(ok: bool, text: str) -> AptAnswer:
    """Read the output (standard output and errors, in any order) of an ``apt-get`` that ended well or did not."""
    lines = text.splitlines()
    installs = tuple(Install(*match.groups()) for line in lines if (match := _INSTALL.match(line)))
    removes = tuple(match.group(1) for line in lines if (match := _REMOVE.match(line)))
    if ok:
        return AptAnswer(True, installs, removes)
    warnings = _said(lines, "W: ")
    said = _said(lines, "E: ")
    fault = _fault([*said, *warnings])
    if fault in (AptFault.SIGNATURE, AptFault.UNREACHABLE):
        said = (*said, *warnings)
    return AptAnswer(False, installs, removes, unmet(text), fault, said[:6])


def unmet(text: str) -> tuple[Unmet, ...]:
    """The entries under "unmet dependencies"; a relation that goes over several lines is one."""
    found: dict[str, list[str]] = {}
    name = ""
    inside = False
    for line in text.splitlines():
        if line.startswith(_UNMET):
            inside = True
        elif inside and (match := _ENTRY.match(line)):
            name = match.group(1)
            found.setdefault(name, []).append(match.group(2).strip())
        elif inside and name and line.startswith("  "):
            relation = line.strip()
            if re.match(r"(Pre)?Depends:|Conflicts:|Breaks:|Recommends:", relation):
                found[name].append(relation)
            else:
                found[name][-1] += f" {relation}"
        else:
            inside = False
    return tuple(Unmet(package, tuple(relations)) for package, relations in found.items())


def _said(lines: list[str], mark: str) -> tuple[str, ...]:
    found = dict.fromkeys(" ".join(line[len(mark) :].split()) for line in lines if line.startswith(mark))
    return tuple(found)


def _fault(lines: list[str]) -> AptFault:
    return next(
        (fault for fault, pattern in _FAULTS if any(re.search(pattern, line) for line in lines)), AptFault.OTHER
    )
