"""Why a program failed, from what it printed: one reader for vLLM's and Ray's logs and NCCL's text. Pure.

The reason often stands on another line than the failure: lines that belong together are read together, each of the process
that printed it, and a line that only says that something failed yields to one that says why.
"""

from __future__ import annotations

import dataclasses
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
    NAMELESS = "nameless"  # an exception without a word, named by the statement that raised it
    ECHO = "echo"  # the end of another process broke a connection
    POINTER = "pointer"  # says only that something else failed
    LINE = "line"  # nothing better than the last line


_WEIGHT = {CauseKind.MEMORY: 5, CauseKind.NAMELESS: 3, CauseKind.ECHO: 2, CauseKind.POINTER: 1, CauseKind.LINE: 0}
_SPECIFIC = 4


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
_TOOL = re.compile(r"(?P<tool>(?:ptxas|nvcc)[\w-]*) (?:[^;]+, line \d+; )?(?P<level>fatal|error)\s*: (?P<text>.+)")
_NO_TOOL = re.compile(r"\S*sh: (?:(?:line )?\d+: )?\S*(?:nvcc|cc|[gc]\+\+): (?:command )?not found")
_CODE = re.compile(r"\S+\.(?:c|cc|cpp|cuh?|h|hpp)(?:(?::\d+){1,2}|\(\d+\)): (?:fatal )?error: .+")
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
    r"Error raised in subprocess|failed to be inspected|Worker failed with error ''|Ninja build failed|"
    r"Internal Triton PTX codegen error|Ptx assembly aborted due to errors",
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
    frames: dict[str, tuple[str, str]] = {}  # function and statement
    warnings: dict[str, str] = {}
    for line in lines:
        text = line.text.strip()
        if frame := _FRAME.match(line.text):
            statement = next(iter(_after(lines, line)), "")
            frames[line.source] = frame["function"], statement.strip() if statement.startswith("    ") else ""
        elif warn := _NCCL_WARN.search(text):
            if not (_NCCL_CONSEQUENCE.match(warn["text"]) and warnings):
                warnings[line.source] = warnings[""] = warn["text"]
        elif cause := _own(line, text):
            yield cause
        elif found := _EXCEPTION.fullmatch(text):
            after, text = _after(lines, line), text.removeprefix("| ")
            warned = warnings.get(line.source) or warnings.get("", "")
            raised = frames.pop(line.source, ("", ""))
            if cause := _of_exception(line.at, found["name"], text, after, warned, *raised):
                yield cause


def _own(line: _Line, text: str) -> Cause | None:
    """A line that is a cause by itself, whatever stands around it."""
    if found := _MEMORY.search(text) or _MEMORY_OF_TASK.search(text):
        count, host = int(found.groupdict().get("count") or 1), found["host"]
        used = f": {found['used']} in use" if "used" in found.groupdict() else ""
        who, were = ("a worker", "was") if count == 1 else (f"{count} workers", "were")
        return Cause(CauseKind.MEMORY, f"{who} on {host} {were} killed for memory pressure (raylet){used}", line.at)
    if _NO_TOOL.fullmatch(text) or _CODE.fullmatch(text):
        return Cause(CauseKind.COMPILER, text[:LONGEST], line.at)
    if found := _TOOL.match(text):
        kind = CauseKind.POINTER if _POINTS.search(found["text"]) else CauseKind.COMPILER
        return Cause(kind, f"{found['tool']} {found['level']}: {found['text']}"[:LONGEST], line.at)
    if found := _USAGE.fullmatch(text):
        return Cause(CauseKind.USAGE, found["text"][:LONGEST], line.at)
    if found := _WATCHDOG.search(text):
        return Cause(CauseKind.TIMEOUT, found["text"][:LONGEST], line.at)
    if found := _WHAT.match(text):
        return _weighed(found["text"], line.at)
    return None


def _of_exception(
    at: int, name: str, text: str, after: Sequence[str], warned: str, function: str, statement: str
) -> Cause | None:
    """The cause that an exception names, with the lines after it, what NCCL warned of before it and where it was raised."""
    if "validation error" in text and name.endswith("ValidationError"):
        return _of_pydantic(at, text, after)
    if _NCCL_EXCEPTION.search(text):
        return _of_nccl_exception(at, text, after, warned)
    if text.endswith(":") and not _POINTS.search(text):
        text = next((f"{text} {line.strip()}" for line in after if line.strip()), text)
    if ": " not in text:  # without its traceback it says nothing
        said = f"{name} from {statement!r}, in {function}"[:LONGEST]
        return Cause(CauseKind.NAMELESS, said, at) if statement and not _POINTS.search(name) else None
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
    points, echoes = _POINTS.search(text), _ECHOES.search(text)
    kind = CauseKind.POINTER if points else CauseKind.ECHO if echoes else CauseKind.EXCEPTION
    return Cause(kind, text[:LONGEST], at)


def _after(lines: Sequence[_Line], line: _Line) -> list[str]:
    """The lines after one, of the process that printed it."""
    following = lines[line.at + 1 : line.at + 1 + _REACH * 4]
    return [each.text for each in following if each.source == line.source][:_REACH]
