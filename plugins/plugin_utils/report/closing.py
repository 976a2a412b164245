"""What a run ends with: whether it is done, where it serves, a completion that it got, and what to type next."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ansible_collections.lockstep.vllm.plugins.module_utils.core.grouping import grouped
from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import many, names, printable, span
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import gate_matrix
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import RunOutcome
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.served import Endpoint
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.tracker import Tracker

_MOST_ENDPOINTS = 4
_MOST_SKIPPED = 6
_WIDTH = 76
_SAID: Mapping[RunOutcome, str] = {
    "done": "done",
    "gates_failed": "gates FAILED",
    "failed": "FAILED",
    "refused": "refused, nothing was changed",
    "nothing_to_do": "nothing to do",
    "checked": "checked, nothing was changed",
    "interrupted": "interrupted",
    "unfinished": "unfinished",
}
_TIMED = frozenset({"done", "failed", "gates_failed", "interrupted"})


@dataclasses.dataclass(frozen=True)
class Hosts:
    """What became of the hosts of a run that has no plan, by Ansible's own count: each is in one of these."""

    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()

    @classmethod
    def parse(cls, summaries: Mapping[str, Mapping[str, int]]) -> Hosts:
        """From Ansible's summary of each host."""
        found = grouped((_became(counted), host) for host, counted in sorted(summaries.items()))
        return cls(**{name: tuple(hosts) for name, hosts in found.items()})

    @property
    def as_they_were(self) -> bool:
        """Whether nothing changed, nothing failed and all answered."""
        return not (self.changed or self.failed or self.unreachable)

    def rows(self, check: bool) -> list[tuple[str, str]]:
        """One for each that there is. A task that asks once for all hosts counts for one of them: where nothing changed, none
        is named."""
        if self.as_they_were:
            return [("to change", "nothing")] if check else []
        labelled = {
            "to change" if check else "changed": self.changed,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "unreachable": self.unreachable,
        }
        return [(label, names(hosts)) for label, hosts in labelled.items() if hosts]


def _became(counted: Mapping[str, int]) -> str:
    worst = next((name for name in ("unreachable", "failures", "changed") if counted.get(name)), "unchanged")
    return "failed" if worst == "failures" else worst


@dataclasses.dataclass(frozen=True)
class Closing:
    """How a run ended, row by row.

    Attributes:
        title: the playbook, its outcome, and how long it took.
        rows: label and text; commands are whole, to be pasted.
        good: whether it got where it was to go.
    """

    title: str
    rows: tuple[tuple[str, str], ...]
    good: bool


def closing(
    playbook: str,
    outcome: RunOutcome,
    tracker: Tracker,
    report: str = "",
    repeated: Callable[[str], str] = str,
    hosts: Hosts | None = None,
) -> Closing:
    """The end of a run as ``tracker`` saw it.

    Args:
        report: path of its report; empty where it has none.
        repeated: makes a command one that this run's operator can paste.
        hosts: of a run that has neither a plan nor a report to tell what it did.
    """
    plan = tracker.plan
    rows = hosts.rows(outcome == "checked") if hosts is not None and outcome != "refused" else []
    if outcome in ("done", "nothing_to_do"):
        rows += _served(plan.endpoints, tracker, repeated)
    if plan.up_to_date and outcome in ("done", "nothing_to_do"):
        rows.append(("up to date", names(plan.up_to_date)))
    skipped = [(name, why) for name, why in plan.skipped.items() if name not in plan.up_to_date]
    rows += [("skipped", f"{name}: {why}") for name, why in skipped[:_MOST_SKIPPED]]
    if len(skipped) > _MOST_SKIPPED:
        rows.append(("", f"and {many(len(skipped) - _MOST_SKIPPED, 'other replica')}"))
    rows += [("report", report)] if report else []
    rows += [("next", repeated(tracker.next))] if tracker.next and outcome not in ("done", "nothing_to_do") else []
    without = gate_matrix.not_run(tracker.gates, playbook)
    for hosts_without, gates in grouped((each, gate) for gate, each in without.items()).items():
        rows.insert(0, ("not run", f"{names(gates)} on {names(hosts_without, 4)}"))
    failing = gate_matrix.matrix(tracker.gates)
    if outcome == "gates_failed":
        rows.insert(0, ("failed", f"{many(failing.failing, 'gate')}, on {names(failing.failing_hosts, 4)}"))
    took = f" after {span(tracker.elapsed)}" if outcome in _TIMED else ""
    if outcome == "done" and hosts is not None and hosts.as_they_were:
        took += ", nothing changed"
    title = f"{playbook}: {_SAID[outcome]}{took}"
    good = outcome not in ("failed", "gates_failed", "interrupted", "refused")
    return Closing(title, tuple((label, " ".join(printable(text).split("\n"))) for label, text in rows), good)


def box(ended: Closing) -> list[str]:
    """The closing as it ends the screen, open to the right, so that a command is copied whole; one line where that says all."""
    head = f"{'┌' if ended.rows else '─'}─ {ended.title} "
    line = head + "─" * max(_WIDTH - len(head), 2)
    if not ended.rows:
        return [line]
    return [
        line,
        *(f"│ {label:<11} {text}" for label, text in ended.rows),
        "└" + "─" * (_WIDTH - 1),
    ]


def plain(ended: Closing) -> list[str]:
    """The same for a screen that has other lines around it."""
    return [f"{label + ':' if label else '':<8} {text}" for label, text in ended.rows if label != "next"]


def _served(endpoints: Sequence[Endpoint], tracker: Tracker, repeated: Callable[[str], str]) -> list[tuple[str, str]]:
    routers = [each for each in endpoints if each.router]
    known = [each for each in endpoints if each.name in tracker.serving or each.name in tracker.completions]
    offered = routers or known
    if not offered:
        return []
    rows = [("endpoint", f"{each.url}  ({each.name}, model {each.model})") for each in offered[:_MOST_ENDPOINTS]]
    if len(offered) > _MOST_ENDPOINTS:
        rows.append(("", f"and {names([each.name for each in offered[_MOST_ENDPOINTS:]])}"))
    proven = next((each for each in known if each.name in tracker.completions), None)
    if proven is not None:
        got = tracker.completions[proven.name]
        rows.append(("completion", f"{proven.prompt!r} → {got.text!r} ({proven.name}, {span(got.seconds)})"))
    if offered[0].key:
        rows.append(("key", repeated(offered[0].key_command)))
    rows.append(("try it", offered[0].curl))
    return rows
