"""A ctrl-C that ends the run also where it comes at a bad moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

_AGAIN_AFTER = 0.2
"""Seconds; a fork takes less."""


def hear_every_interrupt() -> None:
    """Raise a KeyboardInterrupt again that Python has dropped.

    What is raised in the functions that CPython runs around a fork (``os.register_at_fork``; logging has some) or in a
    destructor is told to ``sys.unraisablehook`` and dropped. Ansible forks for every task of every host, so a ctrl-C in such
    a moment would be lost, and the roll would go on as if nobody had asked it to end. Call it in the main thread.
    """
    process, tell = os.getpid(), sys.unraisablehook

    def raise_again(dropped: Any) -> None:
        if dropped.exc_type is not KeyboardInterrupt or os.getpid() != process:
            tell(dropped)
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(_AGAIN_AFTER, os.kill, (process, signal.SIGINT)).start()

    sys.unraisablehook = raise_again
