"""A ctrl-C that ends the run, with all its workers, whatever Ansible is in the middle of.

Ansible forks for every task of every host. CPython drops what is raised in the functions that it runs around a fork
(``os.register_at_fork``; logging has some) and tells only ``sys.unraisablehook``. There a KeyboardInterrupt is lost: in the
controller, and the roll goes on as if nobody had asked it to end; or in the new worker, and the controller ends, but not
before the worker's task has. And before it has started a new worker, Ansible has closed the old one in its place: if its
handler comes upon that, it fails (``process object is closed``), and the workers after it are not told.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM)
_AGAIN_AFTER = 0.2
"""Seconds; starting a worker takes less."""


def hear_every_interrupt() -> None:
    """Have every interrupt end this process, and every worker from its first moment. Call it in the main thread."""
    _ask_again()
    _let_workers_end()


def _ask_again() -> None:
    """What Ansible's handler could not do in the moment of an interrupt, it can a little later."""
    process, tell, handler = os.getpid(), sys.unraisablehook, signal.getsignal(signal.SIGINT)
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
            tell(what)

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
