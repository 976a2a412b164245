"""What a rollout keeps on the head of every replica: the lock (``lock.json``) and an operator's request (``rollout.json``).

Each may have been written by another version, so any key may be missing.
"""

from __future__ import annotations

from typing import TypedDict


class Lock(TypedDict, total=False):
    """The lock as it stands on a host: the run, the process that holds it (controller/identity.py), since when, when it was
    last renewed, and the run that it was taken over from."""

    run: str | None
    holder: str | None
    controller: str | None
    machine: str | None
    boot: str | None
    namespace: str | None
    pid: int | None
    started: int | None
    since: str | None
    heartbeat: str | None
    taken_over: str | None


class Claim(Lock, total=False):
    """What a run asks for. ``take_over``: runs whose lock may be taken, because their holder is known to be dead or an operator
    named its run."""

    take_over: list[str]


class Requested(TypedDict, total=False):
    """What an operator requests of the rollout, who, and when."""

    action: str | None
    reason: str | None
    by: str | None
    at: str | None
