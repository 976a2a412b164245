"""A ctrl-C that ends the run, with all its workers, also where it comes in the middle of a fork.

Ansible forks for every task of every host. CPython drops what is raised in the functions that it runs around a fork
(``os.register_at_fork``; logging has some) and tells only ``sys.unraisablehook``. There a KeyboardInterrupt is lost: in the
controller, and the roll goes on as if nobody had asked it to end; or in the new worker, and the controller ends, but not
before the worker's task has.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM)
_AGAIN_AFTER = 0.2
"""Seconds; a fork takes less."""


def hear_every_interrupt() -> None:
    """Have every interrupt end this process, and every worker from its first moment. Call it in the main thread."""
    _raise_again_what_is_dropped()
    _let_workers_end()


def _raise_again_what_is_dropped() -> None:
    process, tell = os.getpid(), sys.unraisablehook

    def raise_again(dropped: Any) -> None:
        if dropped.exc_type is not KeyboardInterrupt or os.getpid() != process:
            tell(dropped)
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(_AGAIN_AFTER, os.kill, (process, signal.SIGINT)).start()

    sys.unraisablehook = raise_again


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
