"""Why packages or modules of the kernel failed, from what apt, dpkg, DKMS and modprobe printed. Pure."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

from ..core.causes import LONGEST, Cause, CauseKind

_UNMET = "The following packages have unmet dependencies:"
_UNMET_ENTRY = re.compile(r"^ (\S+) : (\S.*)$")
_RELATION = re.compile(r"(?:Pre)?Depends:|Conflicts:|Breaks:|Recommends:")
_MARKS = {"E: ": CauseKind.APT, "dpkg: error": CauseKind.DPKG, "dpkg: unrecoverable": CauseKind.DPKG}
_APT_POINTS = re.compile(
    r"E: (?:Unable to correct problems|Error, pkgProblemResolver|Sub-process \S+ returned an error code|The repository .* is "
    r"not signed|The following information from --solver|Unmet dependencies\. Try )"
)
_SIGNATURE = re.compile(
    r"^(?:W: )?OpenPGP signature verification failed.*error message is: |^  Sub-process \S*sqv .*message is: "
)
_BUILD = re.compile(r"Error! Bad return status for module build on kernel: (?P<kernel>\S+)")
_MODULE = re.compile(r"/dkms/(?P<module>[\w.-]+)/(?P<version>\d[\w.]*)/build")
_CONSULT = re.compile(r"Consult (?P<log>/\S+?\.log) for more information")
_BUILD_ERRORS = (
    r"(?:\S+:\d+(?::\d+)?|\S*(?:cc1|gcc|cc|clang)[\w.-]*): (?:fatal )?error: .+|(?:ERROR|FATAL): modpost: .+"
    r"|\S*ld\S*: .*(?:error|undefined).*|.*No space left on device.*",
    # What kernels look for and do without is said alike: it is the reason where no compiler says one.
    r"\S*sh: (?:(?:line )?\d+: )?\S+: (?:command )?not found"
    r"|make(?:\[\d+\])?: \S+: (?:No such file or directory|Command not found)",
)


def of_packages(text: str) -> tuple[Cause, ...]:
    """Why apt, dpkg or DKMS failed, from what they printed (standard output and errors), the best kind of cause alone.

    Where DKMS points at a log, ``log`` of its cause is that file: give its text to :func:`with_build_log`.
    """
    lines = text.splitlines()
    found = [*_of_dkms(lines), *_of_signature(lines)]
    if not found:
        found = [Cause(CauseKind.UNMET, f"{name}: {'; '.join(each)}", at) for name, each, at in unmet(lines)]
    marked = [] if any(cause.kind is CauseKind.DKMS for cause in found) else _of_marks(lines)
    specific = [cause for cause in marked if cause.kind is not CauseKind.POINTER]
    return tuple([*found, *specific] or marked)[:6]


def with_build_log(cause: Cause, log: str) -> Cause:
    """A cause of DKMS, with the first error of the compiler from the log that it points at."""
    lines = [line.strip() for line in log.splitlines()]
    error = next((line for pattern in _BUILD_ERRORS for line in lines if re.fullmatch(pattern, line)), "")
    if not error:
        return cause
    error = re.sub(r"^/var/lib/dkms/\S+?/build/", "", error)
    return dataclasses.replace(cause, text=f"{cause.text}: {error}"[:LONGEST], log="")


def unmet(lines: Sequence[str]) -> list[tuple[str, list[str], int]]:
    """apt's entries under "unmet dependencies": package, its relations, line. A relation that goes over lines is one."""
    found: dict[str, tuple[list[str], int]] = {}
    name, inside = "", False
    for at, line in enumerate(lines):
        if line.startswith(_UNMET):
            inside = True
        elif inside and (match := _UNMET_ENTRY.match(line)):
            name = match.group(1)
            found.setdefault(name, ([], at))[0].append(match.group(2).strip())
        elif inside and name and line.startswith("  "):
            relation = line.strip()
            if _RELATION.match(relation):
                found[name][0].append(relation)
            else:
                found[name][0][-1] += f" {relation}"
        else:
            inside = False
    return [(package, relations, at) for package, (relations, at) in found.items()]


def _of_dkms(lines: Sequence[str]) -> Iterator[Cause]:
    for at, line in enumerate(lines):
        if found := _BUILD.match(line):
            after = "\n".join(lines[at + 1 : at + 4])
            log = _CONSULT.search(after)
            module = _MODULE.search(log["log"]) if log else None
            what = f"{module['module']} {module['version']}" if module else "the module"
            if module and module["module"].startswith("nvidia"):
                what = f"driver {module['version']}"
            yield Cause(
                CauseKind.DKMS, f"{what} does not build for kernel {found['kernel']}", at, log["log"] if log else ""
            )


def _of_signature(lines: Sequence[str]) -> list[Cause]:
    """What sqv says of a key, once: apt repeats it, cut short, in a warning."""
    said: dict[str, Cause] = {}
    for at, line in enumerate(lines):
        if found := _SIGNATURE.match(line):
            text = " ".join(line[found.end() :].split())
            reasons = text.split(" because: ")
            which = reasons[0].split(" is not bound")[0].strip(" :")
            why = re.sub(r"T[\d:]+Z$", "", reasons[-1])
            best = said.get(which)
            if best is None or len(why) > len(best.text) - len(which) - 2:
                said[which] = Cause(CauseKind.SIGNATURE, f"{which} is not accepted: {why}", at)
    return list(said.values())


def _of_marks(lines: Sequence[str]) -> list[Cause]:
    """The lines that apt and dpkg mark as errors, each with the line that goes on with it."""
    found: dict[str, Cause] = {}
    for at, line in enumerate(lines):
        mark = next((mark for mark in _MARKS if line.startswith(mark)), None)
        if mark is None:
            continue
        text = " ".join(line.removeprefix("E: ").split())
        if text.endswith(":"):
            following = itertools.takewhile(lambda line: line.startswith(" "), lines[at + 1 :])
            text = " ".join([text, *(each.strip() for each in following)])
        kind = CauseKind.POINTER if _APT_POINTS.match(line) else _MARKS[mark]
        found.setdefault(text, Cause(kind, text.rstrip(".:")[:LONGEST], at))
    return list(found.values())


_MODPROBE = (r"modprobe: FATAL: (Module \S+ not found .*)", r"modprobe: ERROR: (could not insert .*)")


def of_modprobe(text: str) -> Cause:
    """Why modprobe failed: of its lines the one that says why, which comes before those of what called it."""
    for pattern in _MODPROBE:
        if found := re.search(rf"^\s*{pattern}$", text.strip(), re.MULTILINE):
            return Cause(CauseKind.MODULE, found[1].strip().rstrip("."), found.string[: found.start(1)].count("\n"))
    return Cause(CauseKind.LINE, "; ".join(line.strip() for line in text.strip().splitlines()) or "no reason given")
