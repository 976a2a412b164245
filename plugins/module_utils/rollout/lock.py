"""One roll per cluster: the lock that a run holds on every replica's head, and the requests that people leave for a run.

The record ``/var/lib/lockstep/lock.json`` names the run, its holder (``user@controller``), the process, since when, and the
last heartbeat. :func:`decide` is the whole rule; :func:`apply` carries it out on one host, one process at a time.
Requests (``/var/lib/lockstep/rollout.json``: pause or abort) are read whenever the lock is taken or renewed.

A run releases its lock on every head that it can reach, and each remembers that (``lock-ended.json``). So the lock that stays
behind on one that it could not reach is known to be nobody's: another head says that its run has ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict, cast

from ..core import records
from ..core.lock_record import Claim, Lock, Requested
from ..core.stop import Stop
from .states import LockAction, RequestAction

LOCK = records.LOCK
ENDED = records.LOCK_ENDED
REQUEST = records.REQUEST
_TURNSTILE = records.STATE / ".lock.turnstile"

ENDED_KEPT = 8
"""How many runs that have released the lock a host remembers."""

RENEWAL = 20.0
"""Seconds between two heartbeats of a run that waits between two waves."""

LOOK = "ansible-playbook playbooks/status.yml"
"""Shows who holds the lock, and what they do."""

CLAIMS = ("hold", "try")
"""What is asked with a claim, and answered with :class:`Claimed`."""

REQUESTS = (RequestAction.ABORT, RequestAction.PAUSE)
"""The strongest first: where heads disagree, because one was away when it was asked for, the stronger one counts."""


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What a head answers.

    Attributes:
        request: as it stands now; None where there is none.
        ended: the last runs that have released the lock here.
    """

    request: Requested | None
    ended: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Claimed(_Answer):
    """To ``hold``: what became of the claim, and whose the lock is now; to ``try``, what would, and whose it would be.

    Attributes:
        unready: why the replica of this head answers no requests at this moment; empty where it does.
    """

    action: LockAction
    lock: Lock
    unready: str


@dataclasses.dataclass(frozen=True)
class Seen(_Answer):
    """To anything else: what was done, and the lock as it stands now."""

    action: Literal["release", "keep", "read", "write"]
    lock: Lock | None


class Asked(TypedDict, total=False):
    """What a head is asked to ``do``: ``hold`` with a ``claim``, ``try`` that and write nothing, ``release`` what ``run``
    holds, ``read``, or write a ``request`` (None removes it)."""

    do: Literal["hold", "try", "release", "read", "request"]
    claim: Claim
    run: str
    request: Requested | None


@dataclasses.dataclass(frozen=True)
class Decision:
    """What becomes of a claim, and the record that then stands on the host."""

    action: LockAction
    record: Lock


def decide(existing: Lock | None, claim: Claim, now: str) -> Decision:
    """Whether ``claim`` gets the lock.

    Args:
        existing: the lock as it stands, or None.
        claim: what the run asks for.
        now: now, as records write moments.
    """
    lock = cast(Lock, {key: value for key, value in claim.items() if key != "take_over"})
    if existing is None:
        return Decision(LockAction.TAKE, {**lock, "since": now, "heartbeat": now})
    if existing.get("run") == claim["run"]:
        return Decision(LockAction.RENEW, {**existing, **lock, "heartbeat": now})
    if existing.get("run") in claim.get("take_over", ()):
        return Decision(LockAction.TAKE, {**lock, "since": now, "heartbeat": now, "taken_over": existing.get("run")})
    return Decision(LockAction.REFUSE, existing)


def apply(params: Asked) -> dict[str, Any]:
    """Take, renew, release or read the lock of this host, or write a request.

    Returns:
        ``action`` (what was done), ``lock`` and ``request`` (as they stand now; None where there is none), ``ended`` (the last
        runs that have released the lock here). Where the lock is asked for also ``unready``: why the replica of this head
        answers no requests at this moment; empty where it does.

    Raises:
        records.RecordError: a record is damaged; it is for a person to read and remove.
    """
    with _one_at_a_time():
        action = _DO[params["do"]](params)
        held = dict(_decision(params).record) if params["do"] == "try" else records.read(LOCK)
        result = {"action": action, "lock": held, "request": records.read(REQUEST), "ended": _ended()}
    return {**result, "unready": _unready()} if params["do"] in CLAIMS else result


def _unready() -> str:
    from ..engine import readiness
    from ..engine import state as engine_state
    from ..ray.ports import EnginePorts

    config, host = records.read(records.ENGINE_CONFIG), records.read(records.HOST)
    if not config or not host:
        return "no engine is configured"
    ready, silent = readiness.ask(f"http://{host['address']}:{EnginePorts.parse(config).ready}")
    return "" if ready else silent or str(engine_state.read() or "it is not ready")


def _decision(params: Asked) -> Decision:
    return decide(cast("Lock | None", records.read(LOCK)), params["claim"], records.now())


def _hold(params: Asked) -> str:
    decision = _decision(params)
    if decision.action is not LockAction.REFUSE:
        records.write(LOCK, dict(decision.record))
    return decision.action.value


def _release(params: Asked) -> str:
    existing = records.read(LOCK)
    if existing is None or existing.get("run") != params["run"]:
        return "keep"
    records.write(ENDED, {"runs": [*_ended(), str(params["run"])][-ENDED_KEPT:]})
    records.remove(LOCK)
    return "release"


def _ended() -> list[str]:
    return [str(run) for run in (records.read(ENDED) or {}).get("runs", [])]


def _request(params: Asked) -> str:
    request = params["request"]
    changed = records.remove(REQUEST) if request is None else records.write(REQUEST, dict(request))
    return "write" if changed else "keep"


_DO = {
    "hold": _hold,
    "try": lambda params: _decision(params).action.value,
    "release": _release,
    "read": lambda _params: "read",
    "request": _request,
}


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    _TURNSTILE.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(_TURNSTILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def strongest(requests: Sequence[Requested | None]) -> Requested | None:
    """The request that counts where several hosts have one."""
    known = [request for request in requests if request and request.get("action") in REQUESTS]
    return min(known, key=lambda request: REQUESTS.index(request["action"]), default=None)


def refusal(locks: Mapping[str, Lock], now: str) -> Stop:
    """Why a run is refused: who holds the lock, since when, how long ago they were last heard of, and what to do."""
    hosts = ", ".join(locks)
    lock = next(iter(locks.values()))
    return Stop(
        f"a rollout is in progress: run {lock.get('run')} of {lock.get('holder')} (pid {lock.get('pid')}) holds the lock on "
        f"{hosts} for {age(lock.get('since'), now)}; last heartbeat {age(lock.get('heartbeat'), now)} ago. Wait for it to end; "
        f"only where its controller is gone for good, run this again with -e rollout_lock_take_over={lock.get('run')}",
        LOOK,
    )


def age(then: Any, now: str) -> str:
    """How long ago ``then`` was, for people; both as records write moments."""
    try:
        seconds = int((_moment(now) - _moment(str(then))).total_seconds())
    except ValueError:
        return "an unknown time"
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}s"
    return f"{max(seconds, 0)} s"


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
