"""A ctrl-C that ends the run, with all its workers, whatever Ansible is in the middle of.

Ansible forks for every task of every host, and its handling of signals around that has gaps (ansible/ansible#86946):

* CPython drops what is raised in the functions that it runs around a fork (``os.register_at_fork``; logging has some) and
  hands it to ``sys.unraisablehook`` alone. There a KeyboardInterrupt is lost: in the controller, and the run goes on as if
  nobody had asked it to end; or in the new worker, and the controller ends, but not before the worker's task has.
* Before it has started a new worker, Ansible has closed the old one in its place. A handler that comes upon that fails
  (``process object is closed``), and the workers after it are not signalled.

The handlers belong to the controller's process, where no action runs (those run in the workers): the callback
``lockstep.vllm.interrupts`` installs them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

ANSIBLE_CORE = ((2, 19), (2, 22))
"""From this version to before that one Ansible handles signals as described above."""
_ENDING = (signal.SIGINT, signal.SIGTERM)
_AGAIN_AFTER = 0.2
"""Seconds; starting a worker takes less."""


def supports(version: str) -> bool:
    """Whether the handlers suit an ansible-core of this version (``2.21.5``)."""
    low, high = ANSIBLE_CORE
    major, minor = version.split(".")[:2]
    return low <= (int(major), int(minor)) < high


def install_signal_handlers() -> None:
    """Have every interrupt end this process, and every worker from its first moment. Call it in the main thread."""
    _retry_interrupts()
    _let_workers_end()


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Lets what is in it come to its end: an interrupt that comes meanwhile comes after it.

    Once Ansible has been interrupted, the next interrupt ends the process at once: an impatient second ctrl-C, or the one that
    is sent again here, would take the report with it.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            os.kill(os.getpid(), signal.SIGINT)


def _retry_interrupts() -> None:
    """What Ansible's handler could not do in the moment of an interrupt, it can a little later."""
    process, report, handler = os.getpid(), sys.unraisablehook, signal.getsignal(signal.SIGINT)
    if not callable(handler):
        return

    def interrupted(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except ValueError:
            again()

    def dropped(what: Any) -> None:
        if what.exc_type is KeyboardInterrupt and os.getpid() == process:
            again()
        else:
            report(what)

    def again() -> None:
        signal.signal(signal.SIGINT, interrupted)  # Ansible's takes itself away when it is called
        threading.Timer(_AGAIN_AFTER, os.kill, (process, signal.SIGINT)).start()

    signal.signal(signal.SIGINT, interrupted)
    sys.unraisablehook = dropped


def _let_workers_end() -> None:
    """A worker is born with the controller's handlers, which are not for it: until it has its own, a signal ends it."""
    before = threading.local()

    def hold() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def release_worker() -> None:
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        release()

    # Run first of all such functions before a fork, and last after it.
    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=release_worker)
