"""While an engine is silent: what its hosts see of their ranks, asked once per silence and beside the supervisor's own work."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping

from ..core import processes
from ..ray import ranks
from ..ray.stacks import DEADLINE, Answer
from . import suspect
from .record import Suspect

Ask = Callable[[Collection[str], float], Mapping[str, Answer]]


class Inquiry(threading.Thread):
    """One question to all hosts of a replica; never raises into who waits for it, and never outlasts its deadline for him.

    Args:
        ask: puts it, as ``ReplicaCluster.stacks``.
        hosts: whom.
        head: this host's name.
    """

    def __init__(self, ask: Ask, hosts: Collection[str], head: str) -> None:
        super().__init__(name="inquiry", daemon=True)
        self._ask, self._hosts, self._head = ask, tuple(hosts), head
        self._ends = time.monotonic() + DEADLINE
        self.found: Suspect | None = None

    def run(self) -> None:
        own = own_processes()
        answers = self._ask(self._hosts, self._ends - time.monotonic())
        self.found = suspect.find(self._hosts, answers, self._head, own)

    def result(self) -> Suspect | None:
        """What was found; waits for that until the inquiry's deadline, and no longer."""
        self.join(max(0.0, self._ends - time.monotonic()))
        return self.found


class Silence:
    """Inquires once as tokens cease, and forgets it when they come again. Arguments as for ``Inquiry``."""

    def __init__(self, ask: Ask, hosts: Collection[str], head: str) -> None:
        self._ask, self._hosts, self._head = ask, hosts, head
        self._inquiry: Inquiry | None = None

    def follow(self, silent: bool) -> None:
        if not silent:
            self._inquiry = None
        elif self._inquiry is None:
            self._inquiry = Inquiry(self._ask, self._hosts, self._head)
            self._inquiry.start()

    @property
    def suspect(self) -> Suspect | None:
        """What is known by now."""
        return self._inquiry.found if self._inquiry is not None else None

    def result(self) -> Suspect | None:
        """What is known at the end of the inquiry, for which this waits until its deadline at most."""
        return self._inquiry.result() if self._inquiry is not None else None


def own_processes() -> list[suspect.OwnProcess]:
    """The processes of this supervisor's engine that are no ranks."""
    below = [process.pid for process in processes.below(os.getpid()) if process.alive]
    seen = ranks.states(below)
    named = {pid: processes.command(pid).partition(" ")[0] for pid in seen}
    return [
        suspect.OwnProcess(os.path.basename(named[pid])[:40], pid, state)
        for pid, state in seen.items()
        if named[pid] and not named[pid].startswith(ranks.TITLES)
    ]
