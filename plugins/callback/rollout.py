# Copyright: (c) 2026, The Lockstep authors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = """
name: rollout
type: aggregate
short_description: Show how a roll goes, keep its journal, write its report
version_added: 0.1.0
author: The Lockstep authors (@lockstep)
description:
  - While a run goes on, prints one line per step and host, with the elapsed time, the wave, who is serving and an
    estimate of the time left.
  - Keeps a journal (JSON lines, each on disk before the run goes on) and, at the end, writes one self-contained HTML
    report beside it. C(docs/reference/journal.md) describes both.
  - Tells a webhook (C(rollout_webhook_url), C(rollout_webhook_secret), C(rollout_webhook_headers)) that a roll begins, has
    failed or is done, by a process of its own; C(docs/reference/webhook.md) describes the message.
  - Limits what a host may answer to any task of a run; more fails the task on that host.
  - Runs that do nothing of a roll leave nothing behind. A fault of this plugin is a warning and never stops a run.
requirements:
  - enabled in the C(callbacks_enabled) setting
options:
  path:
    description:
      - Folder on the controller that gets one folder per run, with C(journal.jsonl) and C(report.html).
      - A relative path is taken from the folder that the playbook is run in.
    type: str
    default: ./.cache/lockstep/runs
    ini:
      - section: callback_lockstep_rollout
        key: path
    env:
      - name: LOCKSTEP_RUNS
  live:
    description: Whether to print lines while the run goes on.
    type: bool
    default: true
    ini:
      - section: callback_lockstep_rollout
        key: live
    env:
      - name: LOCKSTEP_LIVE
  answer_limit:
    description:
      - MiB that a host may answer to one call of a task, such as a module's result, over connection V(ssh) or V(local).
      - No task of this collection needs more than the default; one of your own may, as M(ansible.builtin.slurp) does.
    type: int
    default: 4
    ini:
      - section: callback_lockstep_rollout
        key: answer_limit
    env:
      - name: LOCKSTEP_ANSWER_LIMIT
"""

import atexit
import dataclasses
import functools
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.plugins.callback import CallbackBase

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import (
    ansible_internals,
    answers,
    identity,
    signals,
)
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import (
    closing,
    events,
    feed,
    journal,
    live_lines,
    page,
    timeline,
    webhook,
    words,
)
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import Event
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.tracker import Tracker

_FAULTS_TOLERATED = 3
# They take no time, and one that a condition skips begins nothing; the tasks that they bring carry their variables.
_LISTED = 50
"""Runs in the index."""
_INCLUDES = frozenset(("include_role", "include_tasks", "import_role", "import_tasks"))
_PLAYBOOKS = {(path.parents[2] / "playbooks").resolve() for path in (Path(__file__), Path(__file__).resolve())}
_SETS_OUT = frozenset(("step_started", "wave_started", "gate"))
_SAYS = "ansible.builtin.debug"
_STEPS = frozenset(words.STEPS)
_COLOURS = {"failed": "red", "gate": "cyan", "serving": "green", "wave_started": "blue", "run_ended": "blue"}


def _harmless(method: Callable[..., None]) -> Callable[..., None]:
    """An error in here becomes a warning; after a few of them the plugin is silent. The run goes on regardless."""

    @functools.wraps(method)
    def guarded(self: CallbackModule, *arguments: Any, **named: Any) -> None:
        if self.faults >= _FAULTS_TOLERATED:
            return
        try:
            method(self, *arguments, **named)
        except Exception as error:
            self.faults += 1
            end = "; it stays silent from here on" if self.faults == _FAULTS_TOLERATED else ""
            self._display.warning(f"lockstep.vllm.rollout: {type(error).__name__}: {error}{end}")

    return guarded


class CallbackModule(CallbackBase):
    """Ansible's notifications go to a :class:`Tracker`; its events go to the journal and the screen."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lockstep.vllm.rollout"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.faults = 0
        self._tracker = Tracker()
        self._began = time.time()
        self._journal: journal.Journal | None = None
        self._held_back: list[Event] = []
        self._playbook = ""
        self._ours = False
        self._hosts = closing.Hosts()
        self._play_step: dict[str, Any] = {}
        self._process = os.getpid()
        self._over = False
        self._webhook_of: webhook.Settings | None = None
        self._webhook_unfit = ""
        self._webhook: webhook.Webhook | None = None
        self._teller: webhook.Teller | None = None
        atexit.register(self._interrupted)

    @_harmless
    def v2_playbook_on_start(self, playbook: Any) -> None:
        answers.limit(self.get_option("answer_limit"))  # in this process, which workers are forks of
        before = 0.0 if self._playbook else identity.running_for()  # a further playbook of one command begins now
        self._playbook = ansible_internals.playbook_name(playbook)
        self._ours = ansible_internals.playbook_folder(playbook) in _PLAYBOOKS
        self._began = time.time() - before
        # Actions of this run put what they bring from hosts beside the journal.
        os.environ[journal.ROOT_VARIABLE] = str(self._root())
        self._tracker = Tracker(typical_wave=timeline.typical_wave(self._earlier()), before=before)

    @_harmless
    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play_step = _convention(play.get_vars())
        self._publish(self._tracker.play_starts())
        self._find_webhook(play)

    @_harmless
    def _find_webhook(self, play: Any) -> None:
        """Read once, as soon as there is a host to read it of."""
        if self._webhook_of is not None or self._webhook_unfit or context.CLIARGS.get("check"):
            return
        try:
            values = ansible_internals.play_variables(play, topology.ROOT, webhook.VARIABLES)
            self._webhook_of = webhook.Settings.parse(values)
        except AnsibleError:
            self._webhook_unfit = "rollout_webhook_url, _secret or _headers cannot be templated; nothing is sent"
        except ValueError as error:
            self._webhook_unfit = str(error)
        if self._webhook_unfit:
            self._display.warning(self._webhook_unfit)

    @_harmless
    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if _is_include(task):
            return
        step = {**self._play_step, **_convention(task.get_vars())}
        self._publish(self._tracker.task_starts(host.get_name(), step.get("lockstep_step"), step.get("lockstep_wave")))

    @_harmless
    def v2_runner_on_ok(self, result: Any) -> None:
        self._ended(result, "changed" if result.is_changed() else "ok")

    @_harmless
    def v2_runner_on_skipped(self, result: Any) -> None:
        self._ended(result, "skipped")

    @_harmless
    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._ended(result, "ok" if ignore_errors else "failed")

    @_harmless
    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._ended(result, "unreachable")

    @_harmless
    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._hosts = closing.Hosts.parse({host: stats.summarize(host) for host in stats.processed})
        failed = bool(self._hosts.failed or self._hosts.unreachable)
        with signals.interrupts_held():
            self._finish(self._tracker.outcome(failed, bool(context.CLIARGS.get("check"))))

    def _ended(self, result: Any, outcome: events.TaskOutcome) -> None:
        task = result.task
        if _is_include(task) and outcome not in ("failed", "unreachable"):
            return  # it begins nothing and ends nothing: the tasks that it brings do
        host, name = result.host.get_name(), task.get_name().strip()
        action, starts = ansible_internals.full_name(task), Invocation.of_this_run().starts
        found = ansible_internals.result_of(result)
        report = events.TaskReport.parse(host, name, outcome, found, action, starts)
        if action == _SAYS and task.get_vars().get("lockstep_conclusion") is True:
            report = dataclasses.replace(report, conclusion=events.said(found))
        self._publish(self._tracker.task_ends(report))

    def _publish(self, happened: list[Event]) -> None:
        for event in map(Invocation.of_this_run().in_result, happened):
            stamped = {"at": journal.stamp(self._began + event["elapsed"]), **event}
            self._record(stamped)
            self._tell(stamped)
            if not self.get_option("live"):
                continue
            if feed.listener is not None:
                feed.listener.follow(event, self._tracker)
            elif line := live_lines.line(event, self._tracker):
                self._display.display(line, color=_COLOURS.get(event["event"]))

    def _record(self, event: Event) -> None:
        """Journal an event. What comes before the first step is held back: a run that does nothing leaves nothing."""
        if self._journal is None and (event["event"] not in _SETS_OUT or context.CLIARGS.get("check")):
            self._held_back.append(event)
            return
        if self._journal is None:
            run = next((str(held["run"]) for held in self._held_back if held.get("run")), journal.new_run())
            self._journal = journal.Journal(self._root(), run)
            for held in [self._started(), *self._held_back]:
                self._journal.write(held)
        self._journal.write(event)

    @_harmless
    def _tell(self, event: Event) -> None:
        """Hand the webhook its message, if this event makes one. Whoever receives it delays nothing here."""
        if self._webhook_of is None or self._journal is None:
            return
        if self._teller is None:
            about = {"run": self._journal.run, **{key: self._started()[key] for key in webhook.ABOUT}}
            self._teller = webhook.Teller(about)
        message = self._teller.follow(event, self._tracker.plan)
        if message is None:
            return
        if self._webhook is None:
            self._webhook = webhook.Webhook(self._webhook_of)
        last = event["event"] == "run_ended"
        self._webhook.tell(message, None if last else self._teller.if_killed(event, self._tracker.plan))

    @_harmless
    def _end_webhook(self) -> None:
        if self._webhook is not None and (problem := self._webhook.close()):
            self._display.warning(f"the webhook has missed a message: {problem}")

    def _started(self) -> Event:
        return {
            "at": journal.stamp(self._began),
            "event": "run_started",
            "elapsed": 0.0,
            "playbook": self._playbook,
            "controller": socket.gethostname(),
            "user": identity.user(),
            "pid": self._process,
            "check": bool(context.CLIARGS.get("check")),
            "limit": context.CLIARGS.get("subset"),
            "command": Invocation.of_this_run().typed,
            "cluster": Invocation.of_this_run().cluster,
            "zone": time.localtime(self._began).tm_zone,
            "utc_offset": time.localtime(self._began).tm_gmtoff,
        }

    def _finish(self, outcome: events.RunOutcome) -> None:
        self._over = True
        if outcome == "interrupted":
            self._tracker.next = self._tracker.next or Invocation.of_this_run().typed
        if self._journal is None:
            # Of a playbook of somebody's own, Ansible's recap tells the end.
            if feed.listener is not None and (self._tracker.planned or (self._ours and self._hosts != closing.Hosts())):
                self._tracker.ends(outcome)
                self._close(outcome, hosts=None if self._tracker.planned else self._hosts)
            return
        self._publish(self._tracker.ends(outcome))
        self._journal.close()
        _write_report(self._journal.folder)
        self._end_webhook()
        self._close(outcome, os.path.relpath(self._journal.report))
        for folder in journal.unreported(self._root(), but=self._journal.run):
            _write_report(folder)
        _write_index(self._root())

    def _close(self, outcome: events.RunOutcome, report: str = "", hosts: closing.Hosts | None = None) -> None:
        """Show what the run ends with; a screen with other lines has had its outcome and the next command already."""
        repeated = Invocation.of_this_run().repeated
        ended = closing.closing(self._playbook, outcome, self._tracker, report, repeated, hosts)
        if feed.listener is not None:
            feed.listener.close(ended)
            return
        for line in closing.plain(ended):
            self._display.display(line)

    @_harmless
    def _interrupted(self) -> None:
        """The interpreter goes down and the run has not ended: ctrl-C, or an error of Ansible's own."""
        if os.getpid() == self._process and not self._over and self._journal is not None:
            with signals.interrupts_held():
                self._finish("interrupted")

    def _root(self) -> Path:
        return Path(self.get_option("path")).expanduser().absolute()

    def _earlier(self) -> Iterator[list[Event]]:
        """Journals of earlier runs, newest first."""
        for path in sorted(self._root().glob(f"*/{journal.NAME}"), reverse=True)[:10]:
            try:
                yield journal.read(path)
            except (OSError, ValueError):
                continue


def _is_include(task: Any) -> bool:
    return task.action.rpartition(".")[2] in _INCLUDES


def _convention(variables: dict[str, Any]) -> dict[str, Any]:
    """``lockstep_step`` and ``lockstep_wave`` as literals; an expression is not for a callback to evaluate."""
    found: dict[str, Any] = {}
    if variables.get("lockstep_step") in _STEPS:
        found["lockstep_step"] = str(variables["lockstep_step"])
    if isinstance(variables.get("lockstep_wave"), int):
        found["lockstep_wave"] = variables["lockstep_wave"]
    return found


def _write_report(folder: Path) -> None:
    _replace(folder / journal.REPORT, page.render(journal.read(folder / journal.NAME), page.fetched_evidence(folder)))


def _write_index(root: Path) -> None:
    folders, all_runs = journal.newest(root, _LISTED)
    runs = []
    for folder in folders:
        try:
            events = journal.read(folder / journal.NAME)
        except (OSError, ValueError):
            continue  # the index shows what can be read
        link = f"{folder.name}/{journal.REPORT}" if (folder / journal.REPORT).exists() else ""
        runs.append(page.listed(events, link))
    _replace(root / journal.INDEX, page.render_index(runs, all_runs))


def _replace(path: Path, html: str) -> None:
    records.replace(path, html.encode(errors="replace").decode(), 0o600)
