# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = """
name: calm
type: stdout
short_description: Show of a run what people need, and no more
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
description:
  - Shows the plan, a line for each step and host with the time that it took, what a wait waits for, failures whole and once,
    and at the end where it serves, a completion that it got, the report, and the next command.
  - On a terminal, one line for each host at its end says what it does now; it is redrawn.
  - With C(-v) it is Ansible's own C(default). Tasks of other playbooks than Lockstep's have a line each, and fail as there.
  - Other callbacks see every event as ever. Nothing of a result reaches the terminal that would move its cursor.
  - What it knows of steps comes from the callback C(lockstep.vllm.rollout).
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as C(stdout_callback) in the configuration
"""

import functools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.plugins.callback.default import CallbackModule as Default

from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import printable
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals, identity
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import events, feed, progress
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.calm_view import View
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.screen import Screen

_ROOTS = (Path(__file__).parents[2], Path(__file__).resolve().parents[2])
_OURS = tuple(root / part for root in _ROOTS for part in ("playbooks", "roles"))
_TICK = 0.5
_REDRAWN_AFTER = 0.1
"""Seconds; the tasks of a thousand hosts begin at once, and a terminal may be far away."""
_DEBUG = "ansible.builtin.debug"


def _calm(method: Callable[..., None]) -> Callable[..., None]:
    """Ansible's own method of that name where ``-v`` asks for it, and from an error in here on."""

    @functools.wraps(method)
    def chosen(self: CallbackModule, *arguments: Any, **named: Any) -> None:
        if self.calm:
            try:
                with self.lock:
                    method(self, *arguments, **named)
                return
            except Exception as error:
                self.give_up(error)
        getattr(Default, method.__name__)(self, *arguments, **named)

    return chosen


class CallbackModule(Default):
    """Ansible's notifications go to a :class:`View`, and so do the events of the callback ``rollout``."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "lockstep.vllm.calm"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.calm = self._display.verbosity == 0
        self.lock = threading.RLock()
        self._process = os.getpid()
        self._screen = Screen()
        self._view = View(self._show, self._screen.redrawn)
        self._over = threading.Event()
        self._drawn = 0.0
        self._channel: progress.Channel | None = None
        self._foreign_hosts: set[str] = set()

    def give_up(self, error: Exception) -> None:
        """Show the rest of the run as Ansible itself does."""
        self.calm, feed.listener = False, None
        self._over.set()
        self._screen.draw([])
        self._display.warning(
            f"lockstep.vllm.calm: {type(error).__name__}: {error}; the rest is shown as Ansible shows it"
        )

    @_calm
    def v2_playbook_on_start(self, playbook: Any) -> None:
        before = identity.running_for() if self._channel is None else 0.0
        if self._channel is None:
            self._channel = progress.Channel()
            ansible_internals.show_through(self._display, self._above)
        self._view = View(self._show, self._screen.redrawn, before=before)
        feed.listener = _Locked(self._view, self.lock)
        self._over = threading.Event()
        threading.Thread(target=self._go_on, args=(self._over, self._channel), name="calm", daemon=True).start()

    @_calm
    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play
        self._view.flush()

    @_calm
    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._view.foreign_task(task.get_name().strip())

    @_calm
    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._view.foreign_task(task.get_name().strip())

    @_calm
    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._view.task_starts(host.get_name(), task.get_name().strip())
        if time.monotonic() - self._drawn > _REDRAWN_AFTER:
            self._draw()

    @_calm
    def v2_runner_on_ok(self, result: Any) -> None:
        self._ended(result, "changed" if result.is_changed() else "ok")
        ansible_internals.show_warnings(self, result)
        if ansible_internals.full_name(result.task) == _DEBUG:
            self._debug(result)

    @_calm
    def v2_runner_on_skipped(self, result: Any) -> None:
        self._ended(result, "skipped")
        ansible_internals.show_warnings(self, result)

    @_calm
    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if ignore_errors:
            self._ended(result, "failed and ignored")
        elif self._failed(result, "failed"):
            super().v2_runner_on_failed(result, ignore_errors)

    @_calm
    def v2_runner_on_unreachable(self, result: Any) -> None:
        if self._failed(result, "unreachable"):
            super().v2_runner_on_unreachable(result)

    @_calm
    def v2_runner_item_on_ok(self, result: Any) -> None:
        pass

    @_calm
    def v2_runner_item_on_skipped(self, result: Any) -> None:
        pass

    @_calm
    def v2_runner_item_on_failed(self, result: Any) -> None:
        if not _is_ours(result.task):
            super().v2_runner_item_on_failed(result)

    @_calm
    def v2_runner_retry(self, result: Any) -> None:
        if not _is_ours(result.task):
            super().v2_runner_retry(result)

    @_calm
    def v2_playbook_on_include(self, included_file: Any) -> None:
        pass

    @_calm
    def v2_playbook_on_no_hosts_matched(self) -> None:
        pass

    @_calm
    def v2_playbook_on_no_hosts_remaining(self) -> None:
        pass

    @_calm
    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._view.flush()
        self._view.doing.clear()
        self._over.set()
        self._draw()
        if not stats.processed:
            super().v2_playbook_on_no_hosts_matched()
        if self._foreign_hosts:
            super().v2_playbook_on_stats(stats)

    def _ended(self, result: Any, outcome: str) -> None:
        host = result.host.get_name()
        self._view.task_ends(host)
        if not _is_ours(result.task) and ansible_internals.full_name(result.task) != _DEBUG:
            self._foreign_hosts.add(host)
            self._view.foreign(host, outcome)

    def _failed(self, result: Any, outcome: events.TaskOutcome) -> bool:
        """Whether Ansible itself is to show it: the task is none of Lockstep's, and its result can be shown."""
        action, invocation = ansible_internals.full_name(result.task), Invocation.of_this_run()
        host, name = result.host.get_name(), result.task.get_name().strip()
        found = ansible_internals.result_of(result)
        report = events.TaskReport.parse(host, name, outcome, found, action, invocation.starts)
        ours = _is_ours(result.task) or found is ansible_internals.TOO_DEEP
        if ours:
            ansible_internals.show_warnings(self, result)
            self._view.failed(report, action, invocation.repeated)
        else:
            self._foreign_hosts.add(host)
            self._view.flush()
            self._view.knows(report)
        self._view.task_ends(host)
        return not ours

    def _debug(self, result: Any) -> None:
        """What a task says to people, in its own lines; anything but text as Ansible shows it."""
        said: Any = ansible_internals.result_of(result).get("msg")
        lines = said if isinstance(said, list) else [said]
        if not all(isinstance(line, str) for line in lines):
            super().v2_runner_on_ok(result)
            return
        who = "" if _is_ours(result.task) else f"{result.host.get_name()}: "
        for line in lines:
            self._view.text(who + line)

    def _show(self, line: str, colour: str | None = None) -> None:
        self._display.display(line, color=colour)

    def _above(self, display: Callable[..., None], msg: Any, *arguments: Any, **named: Any) -> None:
        """All that is displayed, by whomever: made printable, and put above what is redrawn."""
        if os.getpid() != self._process:
            return display(msg, *arguments, **named)  # a worker's, which sends it here
        with self.lock, self._screen.above():
            display(printable(msg) if isinstance(msg, str) and self.calm else msg, *arguments, **named)

    def _go_on(self, over: threading.Event, channel: progress.Channel) -> None:
        """While the run goes on: what workers tell of their waits, and the time."""
        while not over.wait(_TICK):
            try:
                with self.lock:
                    for waiting in channel.read():
                        self._view.reported(waiting)
                    self._view.tick()
                    self._draw()
            except Exception as error:
                with self.lock:
                    self.give_up(error)

    def _draw(self) -> None:
        if self._screen.redrawn:
            self._drawn = time.monotonic()
            self._screen.draw(self._view.live(*self._screen.size()))


class _Locked:
    """The view, for the callback ``rollout``: its events come from the same threads as Ansible's notifications."""

    def __init__(self, view: View, lock: threading.RLock) -> None:
        self._view, self._lock = view, lock

    def follow(self, event: events.Event, tracker: Any) -> None:
        with self._lock:
            self._view.follow(event, tracker)

    def close(self, closing: Any) -> None:
        with self._lock:
            self._view.close(closing)


@functools.cache
def _is_ours_at(path: str) -> bool:
    return any(each.is_relative_to(part) for part in _OURS for each in (Path(path), Path(path).resolve()))


def _is_ours(task: Any) -> bool:
    """Whether a task stands in a playbook or a role of this collection."""
    return _is_ours_at(str(task.get_path() or "").rpartition(":")[0])
