"""The lines of the calm screen: pure functions of what happened. No text that a host gave reaches them unprintable."""

from __future__ import annotations

import dataclasses
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.lockstep.vllm.plugins.module_utils.core.grouping import grouped
from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import clock, many, names, printable, span
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import words
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import Failure

INDENT = " " * 9
_FEW = 4
"""So many hosts have a line each for a step that took them different times; more of them have one together, and so do
hosts whose gates passed."""
_ALIKE_WITHIN = 1.0
"""Seconds by which times that are no different may differ."""
_ABOVE = "(in full above)"
_SHORT = 120
_MOST_ROWS = 3
_NARROWEST = 30
"""Rows that what a host waits for may take on a terminal, where few hosts are shown, and how narrow they may be."""


@dataclasses.dataclass(frozen=True)
class StepEnded:
    """A step that is over on one host, or a gate that passed there; seconds since the run began.

    Attributes:
        began, ended: of its work there.
        at: when it was known to be over: hosts that are done wait for those of their wave before they go on.
    """

    host: str
    step: str
    wave: int | None
    began: float
    ended: float
    outcome: str
    changed: bool
    at: float

    @property
    def alike(self) -> tuple[str, int | None, str, bool]:
        return self.step, self.wave, self.outcome, self.changed


@dataclasses.dataclass(frozen=True)
class Doing:
    """What a host does now.

    Attributes:
        what: the step, or the task where it belongs to none.
        since: seconds since the run began.
        step: whether it is one.
        waits: what for, where it waits; it began to ``waits_since``.
    """

    what: str
    since: float
    step: bool = False
    waits: str = ""
    waits_since: float = 0.0


def steps(ended: Sequence[StepEnded]) -> list[str]:
    """Steps that ended at about the same time, in the order of the times that their lines bear."""
    alike: list[Sequence[StepEnded]] = []
    for group in grouped((one.alike, one) for one in ended).values():
        alike += _by_time(group) if len(group) <= _FEW and group[0].outcome != "passed" else [group]
    return list(map(_step, sorted(alike, key=_at)))


def _by_time(ended: Iterable[StepEnded]) -> list[list[StepEnded]]:
    """Those that took as long as each other, together."""
    found: list[list[StepEnded]] = []
    for one in sorted(ended, key=_took):
        if found and _took(one) - _took(found[-1][0]) < _ALIKE_WITHIN:
            found[-1].append(one)
        else:
            found.append([one])
    return found


def _took(ended: StepEnded) -> float:
    return ended.ended - ended.began


def _at(alike: Sequence[StepEnded]) -> float:
    return max(one.at for one in alike)


def _step(alike: Sequence[StepEnded]) -> str:
    first = alike[0]
    took = sorted(map(_took, alike))
    shortest, longest = span(took[0]), span(took[-1])
    time = longest if shortest == longest else f"{shortest} to {longest}"
    became = first.outcome if first.outcome != "ok" else "changed" if first.changed else ""
    who = names(sorted(one.host for one in alike), _FEW)
    return f"{clock(_at(alike)):>7}  {who:<12} {first.step:<13} {time:<13} {became}".rstrip()


def serving(changed: Mapping[str, bool], elapsed: float, serve_now: str) -> list[str]:
    """Replicas that began to serve, or were drained, at about the same time; and who serves now."""
    came, went = (sorted(name for name, serves in changed.items() if serves is which) for which in (True, False))
    said = [f"{names(came)} serve{'s' if len(came) == 1 else ''}"] if came else []
    said += [f"{names(went)} {'is' if len(went) == 1 else 'are'} drained"] if went else []
    return [f"{clock(elapsed):>7}  {', '.join(said)}; {serve_now}"] if said else []


def failure(failed: Failure, shown: Iterable[str] = ()) -> list[str]:
    """A failure, whole; the causes that were ``shown`` before are named in it by their first lines."""
    what = "UNREACHABLE" if failed.unreachable else "FAILED"
    at = f" at {failed.step}" if failed.step else ""
    cause = without(failed.cause, shown)
    lines = [f"{clock(failed.elapsed):>7}  {failed.host:<12} {what}{at}: {words.task(_flat(failed.task))}"]
    lines += [f"{INDENT}  {line}" for line in printable(cause).split("\n")]
    lines += [f"{INDENT}  evidence: {failed.host}:{_flat(path)}" for path in failed.evidence]
    return lines + ([f"{INDENT}  next: {_flat(failed.next)}"] if failed.next and failed.next not in cause else [])


def likewise(failed: Sequence[Failure]) -> str:
    """Failures of other hosts, for the reason that was shown last; hosts that are gone, with how each may be asked why."""
    hosts = sorted(each.host for each in failed)
    line = f"{clock(max(each.elapsed for each in failed)):>7}  {names(hosts, _FEW):<12}"
    if not failed[0].unreachable:
        return f"{line} FAILED for the same reason"
    first = failed[0]
    following = _flat(first.next).replace(f" {first.host} -m ", f" {','.join(hosts)} -m ").partition("; ")[0]
    return f"{line} UNREACHABLE too" + (f"; next: {following}" if following else "")


def verdict(failed: Failure, shown: Iterable[str]) -> list[str]:
    """What the controller itself concludes: it is about no single host."""
    return printable(without(failed.cause, shown)).split("\n")


def without(text: str, shown: Iterable[str]) -> str:
    """``text`` with the causes in it that were shown before cut to their first lines."""
    for cause in sorted(shown, key=len, reverse=True):
        first = cause.split("\n")[0]
        short = first if len(first) <= _SHORT else f"{first[:_SHORT]}…"
        if short != cause and cause in text:
            text = text.replace(cause, f"{short} {_ABOVE}")
    return text


def task(name: str, elapsed: float, outcomes: Mapping[str, str]) -> str:
    """A task of a playbook that is not Lockstep's, over all its hosts: what changed by name, the others by number."""
    # Hosts come in whatever order forks end.
    by_outcome = grouped((outcome, host) for host, outcome in sorted(outcomes.items()))
    parts = [f"changed on {names(by_outcome.pop('changed'))}"] if "changed" in by_outcome else []
    parts += [f"{outcome} on {many(len(hosts), 'host')}" for outcome, hosts in by_outcome.items()]
    return f"{clock(elapsed):>7}  {_flat(name)}: {', '.join(parts)}"


def waits(host: str, elapsed: float, seconds: float, reason: str) -> str:
    """A wait's progress, where it cannot be redrawn."""
    return f"{clock(elapsed):>7}  {host:<12} waits for {span(seconds)}: {_flat(reason)}"


def still(elapsed: float, doing: Mapping[str, Doing]) -> str:
    """A sign of life of a long step, where nothing is redrawn: the step that goes on for longest, who is in it, and what it
    waits for."""
    what, since = min(((each.what, each.since) for each in doing.values()), key=lambda one: one[1])
    hosts = sorted(host for host, each in doing.items() if each.what == what)
    waits = next((f": {_flat(each.waits)}" for each in doing.values() if each.what == what and each.waits), "")
    return (
        f"{clock(elapsed):>7}  {names(hosts):<12} {_flat(what):<10} for {span(elapsed - since)}, still under way{waits}"
    )


def live(doing: Mapping[str, Doing], elapsed: float, foot: str, columns: int, rows: int) -> list[str]:
    """The lines that are redrawn: one per host, and one for the run. None is wider than ``columns``, nor are there more
    than ``rows``."""
    lines: list[str] = []
    most = max(rows - 2, 1)
    for n, (host, each) in enumerate(doing.items()):
        block = _doing(host, each, elapsed, columns, _MOST_ROWS if len(doing) <= _FEW else 1)
        if len(lines) + len(block) > most - (n + 1 < len(doing)):
            lines.append(f"{INDENT}and {many(len(doing) - n, 'other host')}")
            break
        lines += block
    return [cut(line.rstrip(), columns) for line in [*lines, f"{clock(elapsed):>7}  {foot}"]] if lines else []


def _doing(host: str, doing: Doing, elapsed: float, columns: int, most: int) -> list[str]:
    """One line, and up to ``most`` more where what it waits for does not fit beside the host."""
    line = f"   {clock(elapsed - doing.since):>6}  {host:<12} {_flat(doing.what)}"
    if not doing.waits:
        return [line]
    line, reason = f"{line}  waits for {clock(elapsed - doing.waits_since)}", _flat(doing.waits)
    whole = f"{line}: {reason}"
    if cut(whole, columns) == whole:
        return [whole]
    indent = f"{INDENT}  "
    if most == 1:
        return [f"{line}:", f"{indent}{reason}"]
    rows = textwrap.wrap(reason, max(columns - 2, _NARROWEST), initial_indent=indent, subsequent_indent=indent)
    return [f"{line}:", *rows[:most]]


def cut(line: str, columns: int) -> str:
    """As much of a line as fits, by the width of its characters on a terminal."""
    width, kept = 0, list[str]()
    for character in line:
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width >= columns:
            return "".join(kept)[:-1] + "…" if kept else ""
        kept.append(character)
    return line


def _flat(text: str) -> str:
    return " ".join(printable(text).replace("\t", " ").split("\n"))
