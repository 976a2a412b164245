"""What the calm screen shows of a run: events go in, lines go out through a function; it holds what is to be redrawn.

Nothing here knows Ansible or a terminal: typed events and a clock are enough.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import names, span
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import calm_lines, closing, live_lines
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.calm_lines import Doing, StepEnded
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import PLANNERS, Event, Failure, TaskReport
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.progress import Progress
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.tracker import Tracker

Show = Callable[[str, str | None], None]
"""Shows one line for good, in a colour."""
_TOGETHER_WITHIN = 1.0
"""Seconds in which steps that end on several hosts, and replicas that come or go, are shown together."""
_SILENT_FOR = 60.0
"""Seconds without a line after which a screen that is not redrawn gets a sign of life."""
_VERDICTS = PLANNERS | {"lockstep.vllm.fail"}
"""Actions that conclude on the controller, of no single host."""
_AS_THEY_ARE = {"wave_started": "blue", "note": None}
"""Events shown as the callback ``rollout`` shows them, and in which colour."""
_MOST_CAUSES = 1000


class View:
    """The screen of one run.

    Args:
        before: seconds that the run went on before this was made.

    Attributes:
        doing: host to what it does now.
    """

    def __init__(
        self, show: Show, redrawn: bool, clock: Callable[[], float] = time.monotonic, before: float = 0.0
    ) -> None:
        self._show_line, self._redrawn, self._clock = show, redrawn, clock
        self._start = clock() - before
        self._last = before
        self._ended: list[StepEnded] = []
        self._serving: dict[str, bool] = {}
        self._serve_now = ""
        self._likewise: list[Failure] = []
        self._held_since: float | None = None
        self._causes: dict[str, None] = {}
        self._newest: tuple[str, str, str] | None = None
        self._foreign: dict[str, str] = {}
        self._foreign_task = ""
        self._foot = ""
        self._waits: dict[str, str] = {}
        self.doing: dict[str, Doing] = {}

    @property
    def elapsed(self) -> float:
        return self._clock() - self._start

    def follow(self, event: Event, tracker: Tracker) -> None:
        """An event of the run's journal."""
        name = event["event"]
        self._serve_now = f"serving: {names(tracker.serving) or 'none'}" if tracker.planned else ""
        left = tracker.time_left()
        self._foot = " · ".join(filter(None, (self._serve_now, f"about {span(left)} left" if left else "")))
        if name == "step_started":
            self.doing[event["host"]] = Doing(event["step"], self.elapsed, step=True)
        elif name == "step_ended":
            self._step_ended(event)
        elif name == "gate":
            self._gate(event, tracker)
        elif name == "serving":
            self._hold()
            self._serving[event["replica"]] = event["serving"]
        elif name in _AS_THEY_ARE and (line := live_lines.line(event, tracker)):
            self._show(line, _AS_THEY_ARE[name])

    def close(self, ended: closing.Closing) -> None:
        """The run is over."""
        self.doing.clear()
        if ended.rows:
            self._show("")
        for line in closing.box(ended):
            self._show(line, "green" if ended.good else "red")

    def task_starts(self, host: str, task: str) -> None:
        """A task begins on a host; where that is in a step, the step is what it does."""
        self.doing.setdefault(host, Doing(task, self.elapsed))

    def task_ends(self, host: str) -> None:
        """A task ended on a host; its step, if it is in one, goes on."""
        self._waits.pop(host, None)
        doing = self.doing.pop(host, None)
        if doing is not None and doing.step:
            self.doing[host] = dataclasses.replace(doing, waits="")

    def failed(self, report: TaskReport, action: str, repeated: Callable[[str], str] = str) -> None:
        """A task of Lockstep's failed, or its host was gone: whole, and once for all hosts that fail alike.

        Args:
            action: full name of the task's action.
            repeated: makes a command one that this run's operator can paste.
        """
        given = report.failure
        if given is None:
            return
        doing = self.doing.get(report.host)
        step = doing.what if doing is not None and doing.step else None
        failed = dataclasses.replace(
            given, cause=repeated(given.cause), next=repeated(given.next), elapsed=self.elapsed, step=step
        )
        # Each host that is gone has its own address in its cause, and ssh has many words for one thing.
        key = (failed.task, "", "") if failed.unreachable else (failed.task, failed.cause, failed.next)
        again, self._newest = key == self._newest, key
        if action in _VERDICTS or failed.refused:
            for line in [] if again else calm_lines.verdict(failed, self._causes):
                self._show(line, "red")
        elif again:
            self._hold()
            self._likewise.append(failed)
        else:
            for line in calm_lines.failure(failed, self._causes):
                self._show(line, "red")
        self.knows(report)

    def knows(self, report: TaskReport) -> None:
        """Its failure is on the screen, with its cause whole."""
        if report.failure is not None and len(self._causes) < _MOST_CAUSES:
            self._causes[report.failure.cause] = None

    def text(self, text: str) -> None:
        """What a task has to say to people: its own lines."""
        for line in text.split("\n"):
            self._show(line)

    def foreign_task(self, name: str) -> None:
        """A task begins that may be of a playbook that is not Lockstep's."""
        self.flush()
        self._foreign_task = name

    def foreign(self, host: str, outcome: str) -> None:
        self._foreign[host] = outcome

    def reported(self, progress: Progress) -> None:
        """A worker says what it waits for."""
        doing = self.doing.get(progress.host, Doing("", self.elapsed))
        since = self.elapsed - progress.seconds
        self.doing[progress.host] = dataclasses.replace(doing, waits=progress.reason, waits_since=since)
        if not self._redrawn and self._waits.get(progress.host) != progress.reason:
            self._waits[progress.host] = progress.reason
            self._show(calm_lines.waits(progress.host, self.elapsed, progress.seconds, progress.reason))

    def tick(self) -> None:
        """Time went on."""
        if self._held_since is not None and self.elapsed - self._held_since > _TOGETHER_WITHIN:
            self.flush()
        if not self._redrawn and self.doing and self.elapsed - self._last > _SILENT_FOR:
            self._show(calm_lines.still(self.elapsed, self.doing))

    def live(self, columns: int, rows: int) -> list[str]:
        """The lines to be redrawn now."""
        return calm_lines.live(self.doing, self.elapsed, self._foot, columns, rows)

    def flush(self) -> None:
        """Show what was held back to be shown together."""
        self._held_since = None
        ended, self._ended = self._ended, []
        for line in calm_lines.steps(ended):
            self._show(line)
        failed, self._likewise = self._likewise, []
        if failed:
            self._show(calm_lines.likewise(failed), "red")
        changed, self._serving = self._serving, {}
        for line in calm_lines.serving(changed, self.elapsed, self._serve_now):
            self._show(line, "green")
        if self._foreign:
            outcomes, self._foreign = self._foreign, {}
            self._show(calm_lines.task(self._foreign_task, self.elapsed, outcomes))

    def _step_ended(self, event: Event) -> None:
        self.doing.pop(event["host"], None)
        if event["outcome"] != "skipped":
            known = {each.name: event[each.name] for each in dataclasses.fields(StepEnded) if each.name in event}
            self._together(StepEnded(**{**known, "at": event["elapsed"]}))

    def _gate(self, event: Event, tracker: Tracker) -> None:
        """A failed gate whose cause is on the screen already is not shown again."""
        if event["verdict"] == "pass":
            now = event["elapsed"]
            began, gate = now - event["seconds"], f"gate {event['gate']}"
            self._together(StepEnded(event["on"], gate, tracker.wave, began, now, "passed", False, now))
        elif not any(event["cause"] in shown for shown in self._causes) and (line := live_lines.line(event, tracker)):
            self._show(line, "red")

    def _together(self, ended: StepEnded) -> None:
        self._hold()
        self._ended.append(ended)

    def _hold(self) -> None:
        if self._held_since is None:
            self._held_since = self.elapsed

    def _show(self, line: str, colour: str | None = None) -> None:
        if self._held_since is not None:
            self.flush()
        self._last = self.elapsed
        self._show_line(line, colour)
