"""The memory of driver changes, kept on the host: what was verified before, what the host is on its way to, and what it ran
before the roll that is not over yet.

``/var/lib/lockstep/driver.json``::

    {"verified": {"version": "550.90.07", "source": "nvidia", "flavor": "open", "at": "…"} or null,
     "change": {"from": what "verified" was, "to": "550.127.05", "began": "…"} or null,
     "roll": {"from": what "verified" was before the roll's first change here, "over": null or when it ended} or null}

A change begins before the first package is touched and ends when the host was accepted: when its gates passed on the new
version and it was let in again. Until then ``change.from`` says where ``restore`` leads, whatever was killed in between.
A roll is over when every replica of the cluster runs what it rolled to. Until then ``roll.from`` says what this host goes
back to when the roll is given up, also after its own change was accepted, from any controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

Record = Mapping[str, Any]
NOTHING: Record = {"verified": None, "change": None, "roll": None}


class NothingToRestore(Exception):
    """There is no driver to go back to; the message says why."""


class NotRunning(Exception):
    """The driver that is to be accepted does not run; the message names both."""


def begin(record: Record | None, wanted: Record, now: str) -> dict[str, Any]:
    """The record once a change to ``wanted`` (version, source, flavor) begins. Beginning it again keeps its origin.

    A host that is on its way to X and is now sent to Y still remembers what was verified before X; one whose roll is not
    over still remembers what it ran before that.
    """
    known = record or NOTHING
    verified, change, roll = known.get("verified"), known.get("change"), known.get("roll")
    origin = change["from"] if change else verified
    if origin and _same(origin, wanted):
        return {"verified": verified, "change": change and {**change, "to": dict(wanted)}, "roll": roll}
    if origin and not _open(roll):
        roll = {"from": dict(origin), "over": None}
    if change and _same(change["to"], wanted):
        return {"verified": verified, "change": dict(change), "roll": roll}
    return {"verified": verified, "change": {"from": origin, "to": dict(wanted), "began": now}, "roll": roll}


def amid_another(record: Record | None, wanted: Record) -> bool:
    """Whether a change to something other than ``wanted`` is under way. It has to be turned also where no package has to be
    touched for that."""
    change = (record or NOTHING).get("change")
    return change is not None and not _same(change["to"], wanted)


def accept(record: Record | None, declared: Record, loaded: str | None, now: str) -> dict[str, Any]:
    """The record once the driver passed its gates and serves: the change is over, the next one starts from here.

    What was accepted is what the host was on its way to (after a restore, that is not what is ``declared``); a host
    that was never changed is taken to run what is declared. One that is back where its roll found it is out of that roll.

    Raises:
        NotRunning: another driver is ``loaded``.
    """
    known = record or NOTHING
    change, verified = known.get("change"), known.get("verified")
    running = change["to"] if change else verified or declared
    if running["version"] != loaded:
        raise NotRunning(f"driver {running['version']} cannot be accepted: {loaded or 'none'} is loaded")
    roll = known.get("roll")
    if _open(roll) and _same(roll["from"], running):
        roll = None
    if not (verified and _same(verified, running)):
        verified = {**_driver(running), "at": now}
    return {"verified": verified, "change": None, "roll": roll}


def settle(record: Record | None, now: str) -> dict[str, Any]:
    """The record once the roll is over, so that it cannot be given up any more. A change under way keeps it open."""
    known = dict(record or NOTHING)
    if has_open_roll(known) and not known.get("change"):
        known["roll"] = {**known["roll"], "over": now}
    return known


def before_roll(record: Record | None) -> dict[str, Any] | None:
    """What this host goes back to when the roll is given up; None where it was not changed by one that is not over."""
    known = record or NOTHING
    change, roll = known.get("change"), known.get("roll")
    origin = roll["from"] if _open(roll) else change["from"] if change else None
    if not origin or not (change or not _same(origin, known.get("verified") or {})):
        return None
    return _driver(origin)


def has_open_roll(record: Record | None) -> bool:
    """Whether this host remembers what it ran before a roll that is not over."""
    return _open((record or NOTHING).get("roll"))


def restore_target(record: Record | None) -> dict[str, Any]:
    """What was verified before the change that is under way.

    Raises:
        NothingToRestore: no change is under way, or nothing had been verified before it.
    """
    change = (record or NOTHING).get("change")
    if not change:
        raise NothingToRestore(
            "no driver change is under way here: the driver is the last verified one, or was never changed"
        )
    if not change["from"]:
        raise NothingToRestore(
            f"the change to {change['to']['version']} was this host's first: no driver was ever verified here before it"
        )
    return dict(change["from"])


def expected_version(record: Record | None) -> str | None:
    """The version that the host should run now: where it is on its way to, else what was accepted last."""
    known = record or NOTHING
    change, verified = known.get("change"), known.get("verified")
    should = change["to"] if change else verified
    return str(should["version"]) if should else None


def _open(roll: Record | None) -> TypeGuard[Record]:
    return roll is not None and not roll.get("over")


def _driver(record: Record) -> dict[str, Any]:
    return {key: record.get(key) for key in ("version", "source", "flavor")}


def _same(one: Record, other: Record) -> bool:
    return all(one.get(key) == other.get(key) for key in ("version", "source", "flavor"))
