"""Why a program failed, from what it printed: one reader for vLLM's and Ray's logs, NCCL's text, apt, dpkg and DKMS. Pure.

The reason often stands on another line than the failure: lines that belong together are read together, each of the process
that printed it, and a line that only says that something failed yields to one that says why.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

from .codes import Code

LONGEST = 400
_REACH = 12  # how many lines after a failure may still belong to it


class CauseKind(Code):
    """What kind of line names the cause."""

    EXCEPTION = "exception"
    VALIDATION = "validation"  # pydantic refuses a setting
    USAGE = "usage"  # a command line that the program does not take
    TIMEOUT = "timeout"
    NCCL = "nccl"
    COMPILER = "compiler"
    MEMORY = "memory"  # killed for want of host memory
    UNMET = "unmet"  # a package's dependencies cannot be satisfied
    SIGNATURE = "signature"  # a repository's signature is not accepted
    DKMS = "dkms"  # a kernel module does not build
    DPKG = "dpkg"
    APT = "apt"
    MODULE = "module"  # the kernel takes a module not in
    ECHO = "echo"  # the end of another process broke a connection
    POINTER = "pointer"  # says only that something else failed
    LINE = "line"  # nothing better than the last line


_WEIGHT = {CauseKind.MEMORY: 4, CauseKind.ECHO: 2, CauseKind.POINTER: 1, CauseKind.LINE: 0}
_SPECIFIC = 3


@dataclasses.dataclass(frozen=True)
class Cause:
    """Why something failed.

    Attributes:
        text: for people, on one line.
        line: index of the line that it was found on.
        log: the file that has the reason, where the text only points there.
    """

    kind: CauseKind
    text: str
    line: int = 0
    log: str = ""

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True)
class _Line:
    at: int
    source: str
    text: str


COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_REPEATED = re.compile(r"\[repeated \d+x across [^\]]*\].*$")
_SOURCE = re.compile(r"(?:\([\w:. =/,-]+\) ?)*(?:\[rank\d+\]: ?)*")
_HEADER = re.compile(r"(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d (?:\[[^\]]+\] ?)?")
_EXCEPTION = re.compile(
    r"(?:\| )?(?P<name>(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Timeout|Failure|Died|Exit|Interrupt)\w*)(?:\([^)]*\))?"
    r"(?:: (?P<text>.+)|:)?"
)
_FRAME = re.compile(r'\s*File "[^"]*", line \d+, in (?P<function>\S+)')
_USAGE = re.compile(r"(?:vllm[\w. -]*|[\w.]+\.py): error: (?P<text>.+)")
_WHAT = re.compile(r"what\(\):\s+(?P<text>.+)")
_WATCHDOG = re.compile(r"Watchdog caught (?P<text>collective operation timeout: .+)")
_PTXAS = re.compile(r"(?P<tool>ptxas[\w-]*) (?:[^;]+, line \d+; )?(?P<level>fatal|error)\s*: (?P<text>.+)")
_NCCL_WARN = re.compile(r"NCCL (?:WARN|ERROR) (?P<text>.+)")
_NCCL_CONSEQUENCE = re.compile(
    r"Cuda failure|\[(?:Proxy Service|Service thread)|Socket recv failed|\S+ failed in \S+ at"
)
_NCCL_EXCEPTION = re.compile(r"NCCL (?:error|failure)|\bnccl[A-Z]\w+Error")
_GLOO = re.compile(r"\[[^\]]*gloo[^\]]*\] (?P<text>.+)")
_TIMED_OUT = re.compile(r"[Tt]imed? ?out")
_MEMORY = re.compile(
    r"(?P<count>[1-9]\d*) Workers \(tasks / actors\) killed due to memory pressure.*IP: (?P<host>[^),]+)"
)
_MEMORY_OF_TASK = re.compile(
    r"Memory on the node \(IP: (?P<host>[^,)]+).* was (?P<used>\S+ / \S+) .*exceeds the memory usage"
)
_POINTS = re.compile(
    r"Engine core initialization failed|See stack trace|see root cause|EngineDeadError|Cancelled|KeyboardInterrupt|"
    r"SystemExit|ActorDiedError|RayTaskError\(|EngineCore encountered an issue|returned non-zero exit status|"
    r"Error raised in subprocess|failed to be inspected|Internal Triton PTX codegen error|Ptx assembly aborted due to errors",
    re.IGNORECASE,
)
_ECHOES = re.compile(
    r"remote process (?:exit|ended)|exiting prematurely|connection (?:closed|reset|refused|was closed)|reset by peer|"
    r"closed by (?:remote )?peer|broken pipe|failed to recv, got 0 bytes",
    re.IGNORECASE,
)
_RUN_WITH = re.compile(r" ?\(run with NCCL_DEBUG=\w+ for details\)")


def of_program(lines: Sequence[str]) -> Cause:
    """Why an engine ended, from its log: the first line that says it best; its last line where none says it at all."""
    causes = list(_causes([_parted(at, line) for at, line in enumerate(lines)]))
    if not causes:
        return last(lines)
    best = max(_weight(cause) for cause in causes)
    ends = [cause for cause in causes if _weight(cause) == best]
    return ends[-1] if best == _WEIGHT[CauseKind.POINTER] else ends[0]


def last(lines: Sequence[str]) -> Cause:
    """The last line that is not empty, without the prefixes of vLLM and Ray."""
    for at in range(len(lines) - 1, -1, -1):
        if text := bare(lines[at]):
            return Cause(CauseKind.LINE, text[:LONGEST], at)
    return Cause(CauseKind.LINE, "nothing")


def bare(line: str) -> str:
    """A line without the process, rank, level, time and file that vLLM, Ray and torch put before it."""
    return _parted(0, line).text.strip()


def of_exception(message: str) -> Cause:
    """The cause within an exception's message: what stands under NCCL's "Last error:", else its first line."""
    lines = [line.strip() for line in message.strip().splitlines()]
    reason = _last_error(lines)
    if reason:
        return Cause(CauseKind.NCCL, reason[:LONGEST], lines.index(reason))
    return Cause(CauseKind.EXCEPTION, lines[0][:LONGEST] if lines else "")


def lost_peer(message: str) -> bool:
    """Whether an exception of gloo, torch's TCPStore or NCCL says that the connection to a peer broke.

    NCCL's fixed text for its codes is no evidence: that of every system error has the word "socket". What it says under
    "Last error:" is, and the one code that means just this.
    """
    if "ncclRemoteError" in message:
        return True
    if _NCCL_EXCEPTION.search(message):
        reason = of_exception(message)
        return bool(_ECHOES.search(reason.text))
    text = message.lower()
    return any(word in text for word in ("connection", "closed", "reset by peer", "broken pipe", "socket"))


def plain(line: str) -> str:
    """A line without colours, and without how often Ray leaves out that another process said the same."""
    return _REPEATED.sub("", COLOUR.sub("", line)).rstrip()


def _parted(at: int, line: str) -> _Line:
    text = plain(line)
    source = _SOURCE.match(text)
    prefix = source.group(0) if source else ""
    return _Line(at, prefix.strip(), _HEADER.sub("", text[len(prefix) :], count=1))


def _weight(cause: Cause) -> int:
    return _WEIGHT.get(cause.kind, _SPECIFIC)


def _causes(lines: Sequence[_Line]) -> Iterator[Cause]:
    functions: dict[str, str] = {}
    warnings: dict[str, str] = {}
    for line in lines:
        text = line.text.strip()
        if frame := _FRAME.match(line.text):
            functions[line.source] = frame["function"]
        elif warn := _NCCL_WARN.search(text):
            if not (_NCCL_CONSEQUENCE.match(warn["text"]) and warnings):
                warnings[line.source] = warnings[""] = warn["text"]
        elif cause := _own(line, text):
            yield cause
        elif found := _EXCEPTION.fullmatch(text):
            after, text = _after(lines, line), text.removeprefix("| ")
            warned = warnings.get(line.source) or warnings.get("", "")
            if cause := _of_exception(line.at, found["name"], text, after, warned, functions.get(line.source, "")):
                yield cause


def _own(line: _Line, text: str) -> Cause | None:
    """A line that is a cause by itself, whatever stands around it."""
    if found := _MEMORY.search(text) or _MEMORY_OF_TASK.search(text):
        count = int(found.groupdict().get("count") or 1)
        used = f": {found['used']} in use" if "used" in found.groupdict() else ""
        workers = "a worker" if count == 1 else f"{count} workers"
        killed = (
            f"{workers} on {found['host']} {'was' if count == 1 else 'were'} killed for memory pressure (raylet){used}"
        )
        return Cause(CauseKind.MEMORY, killed, line.at)
    if found := _PTXAS.match(text):
        kind = CauseKind.POINTER if _POINTS.search(found["text"]) else CauseKind.COMPILER
        return Cause(kind, f"{found['tool']} {found['level']}: {found['text']}"[:LONGEST], line.at)
    if found := _USAGE.fullmatch(text):
        return Cause(CauseKind.USAGE, found["text"][:LONGEST], line.at)
    if found := _WATCHDOG.search(text):
        return Cause(CauseKind.TIMEOUT, found["text"][:LONGEST], line.at)
    if found := _WHAT.match(text):
        return _weighed(found["text"], line.at)
    return None


def _of_exception(at: int, name: str, text: str, after: Sequence[str], warned: str, function: str) -> Cause | None:
    """The cause that an exception names, with the lines after it and what NCCL warned of before it."""
    if "validation error" in text and name.endswith("ValidationError"):
        return _of_pydantic(at, text, after)
    if _NCCL_EXCEPTION.search(text):
        return _of_nccl_exception(at, text, after, warned)
    if text.endswith(":") and not _POINTS.search(text):
        text = next((f"{text} {line.strip()}" for line in after if line.strip()), text)
    if ": " not in text:
        return None
    gloo = _GLOO.match(after[0].strip()) if after else None
    if gloo:
        text = f"{text}: {gloo['text']}"
    if function and _TIMED_OUT.search(text) and not _POINTS.search(text):
        return Cause(CauseKind.TIMEOUT, f"{text[:LONGEST]}, in {function}", at)
    return _weighed(text, at)


def _of_pydantic(at: int, text: str, after: Sequence[str]) -> Cause:
    field = ""
    for line in after:
        if line.startswith("  ") and not line.strip().startswith("For further information"):
            said = re.sub(r" \[type=.*", "", line.strip())
            own = said.startswith(("Value error, ", "Assertion failed, "))
            said = said.split(", ", 1)[1] if own else f"{field}: {said}" if field else said
            cause = _weighed(said.rstrip("."), at)
            return dataclasses.replace(cause, kind=CauseKind.VALIDATION) if cause.kind is CauseKind.EXCEPTION else cause
        field = line.strip()
    return Cause(CauseKind.VALIDATION, text[:LONGEST], at)


def _of_nccl_exception(at: int, text: str, after: Sequence[str], warned: str) -> Cause:
    reason = _last_error([line.strip() for line in after])
    if reason:
        return Cause(CauseKind.ECHO if _ECHOES.search(reason) else CauseKind.NCCL, reason[:LONGEST], at)
    if warned and not _POINTS.search(text):
        said = f"{_RUN_WITH.sub('', text)}: {warned}"[:LONGEST]
        return Cause(CauseKind.ECHO if _ECHOES.search(said) else CauseKind.NCCL, said, at)
    return _weighed(text, at)


def _last_error(lines: Sequence[str]) -> str:
    """What NCCL logged last, as torch repeats it; empty where it does not."""
    for at, line in enumerate(lines):
        if line.startswith("Last error:"):
            return line[len("Last error:") :].strip() or next((each for each in lines[at + 1 :] if each), "")
    return ""


def _weighed(text: str, at: int) -> Cause:
    kind = (
        CauseKind.POINTER if _POINTS.search(text) else CauseKind.ECHO if _ECHOES.search(text) else CauseKind.EXCEPTION
    )
    return Cause(kind, text[:LONGEST], at)


def _after(lines: Sequence[_Line], line: _Line) -> list[str]:
    """The lines after one, of the process that printed it."""
    following = lines[line.at + 1 : line.at + 1 + _REACH * 4]
    return [each.text for each in following if each.source == line.source][:_REACH]


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
