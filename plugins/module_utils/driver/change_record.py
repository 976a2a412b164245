"""The driver change record of a host: which driver was verified last, which change is in progress, and what the host ran
before the rollout that is not completed yet.

``/var/lib/lockstep/driver.json``::

    {"verified": {"version": "550.90.07", "source": "nvidia", "flavor": "open", "at": "…"} or null,
     "change": {"from": what "verified" was, "to": "550.127.05", "began": "…", "before": what was installed} or null,
     "roll": {"from": what "verified" was before the rollout's first change here, "over": null or when it completed} or null}

A change begins before the first package is touched and ends when the host was accepted: when its gates passed on the new
version and it serves again. Until then ``change.from`` is the rollback target, whatever was killed in between.
A rollout is completed when every replica of the cluster runs its target. Until then ``roll.from`` is what this host is
rolled back to when the rollout is aborted, also after its own change was accepted, from any controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, TypeGuard, cast

from ..core.records import RecordError

_DRIVER = ("version", "source", "flavor")


class _Version(TypedDict):
    version: str


class Driver(_Version, total=False):
    """One driver, as the role's variables declare it."""

    source: str | None
    flavor: str | None


class VerifiedDriver(Driver, total=False):
    """A driver that passed its gates, and when."""

    at: str


class _Found(TypedDict):
    packages: dict[str, str]
    preferences: str | None


class Before(_Found, total=False):
    """What a change found: the driver's packages with their apt versions, the preferences that pinned them, and the NVLink
    domain that its GPUs shared with other hosts, where they shared one."""

    nvlink_domain: str


_Change = TypedDict("_Change", {"from": "VerifiedDriver | None", "to": Driver})


class Change(_Change, total=False):
    """A change in progress; one that an older Lockstep began has no ``before``."""

    began: str | None
    before: Before


_Roll = TypedDict("_Roll", {"from": VerifiedDriver})


class Roll(_Roll, total=False):
    """What the host ran before a rollout; ``over`` is when that was completed."""

    over: str | None


class DriverRecord(TypedDict):
    """The driver change record."""

    verified: VerifiedDriver | None
    change: Change | None
    roll: Roll | None


class StoredRecord(TypedDict, total=False):
    """The record as it may lie on a disk."""

    verified: VerifiedDriver | None
    change: Change | None
    roll: Roll | None


Stored = Mapping[str, object]
"""The record as JSON holds it; ``parse`` makes a ``DriverRecord`` of it."""


class NothingToRestore(Exception):
    """There is no driver to roll back to; the message says why."""


class NotRunning(Exception):
    """The driver that is to be accepted does not run; the message names both."""


def parse(stored: Stored | None) -> DriverRecord:
    """The record from JSON; empty where there is none.

    Raises:
        RecordError: a part of it is not what this module writes.
    """
    parts = {name: (stored or {}).get(name) for name in ("verified", "change", "roll")}
    for name, needed in (("verified", {"version"}), ("change", {"from", "to"}), ("roll", {"from"})):
        part = parts[name]
        if part is not None and not (isinstance(part, dict) and needed <= set(part)):
            raise RecordError(f"driver change record: {name!r} is {part!r}")
    return cast(DriverRecord, parts)


def declared(params: Mapping[str, Any]) -> Driver:
    """The driver that a module's parameters name."""
    return {"version": params["version"], "source": params["source"], "flavor": params["flavor"]}


def begin(stored: Stored | None, target: Driver, now: str, before: Before | None = None) -> DriverRecord:
    """The record once a change to ``target`` begins, which found ``before``. Beginning it again keeps its origin.

    A host that is on its way to X and now gets Y as its target still remembers what was verified before X; one whose
    rollout is not completed still remembers what it ran before that.
    """
    record = parse(stored)
    verified, change, roll = record["verified"], record["change"], record["roll"]
    origin = change["from"] if change else verified
    if origin and _same(origin, target):
        return {"verified": verified, "change": {**change, "to": target} if change else None, "roll": roll}
    if origin and not _open(roll):
        roll = {"from": origin, "over": None}
    if change and _same(change["to"], target):
        return {"verified": verified, "change": change, "roll": roll}
    if change:
        return {"verified": verified, "change": {**change, "to": target, "began": now}, "roll": roll}
    begun: Change = {"from": origin, "to": target, "began": now}
    if before is not None:
        begun["before"] = before
    return {"verified": verified, "change": begun, "roll": roll}


def is_changing_to_another(stored: Stored | None, target: Driver) -> bool:
    """Whether a change to something other than ``target`` is in progress: its target must be replaced even where no
    package has to be touched for that."""
    change = parse(stored)["change"]
    return change is not None and not _same(change["to"], target)


def accept(stored: Stored | None, declared: Driver, loaded: str | None, now: str) -> DriverRecord:
    """The record once the driver passed its gates and serves: the change is completed, the next one starts from here.

    What was accepted is the target of the change (after a rollback, that is not what is ``declared``); a host that was
    never changed is taken to run what is declared. One that runs again what it ran before its rollout has left that rollout.

    Raises:
        NotRunning: another driver is ``loaded``.
    """
    record = parse(stored)
    change, verified, roll = record["change"], record["verified"], record["roll"]
    running: Driver = change["to"] if change else verified or declared
    if running["version"] != loaded:
        raise NotRunning(f"driver {running['version']} cannot be accepted: {loaded or 'none'} is loaded")
    if _open(roll) and _same(roll["from"], running):
        roll = None
    if not (verified and _same(verified, running)):
        verified = {
            "version": running["version"],
            "source": running.get("source"),
            "flavor": running.get("flavor"),
            "at": now,
        }
    return {"verified": verified, "change": None, "roll": roll}


def complete(stored: Stored | None, now: str) -> DriverRecord:
    """The record once the rollout is completed and can no longer be aborted. A change in progress keeps it open."""
    record = parse(stored)
    roll = record["roll"]
    if _open(roll) and not record["change"]:
        return {**record, "roll": {"from": roll["from"], "over": now}}
    return record


def before_roll(stored: Stored | None) -> Driver | None:
    """The driver (version, source, flavor) that this host is rolled back to when the rollout is aborted; None where no
    open rollout changed it."""
    record = parse(stored)
    change, roll = record["change"], record["roll"]
    origin = roll["from"] if _open(roll) else change["from"] if change else None
    verified = record["verified"]
    if not origin or not (change or not (verified and _same(origin, verified))):
        return None
    return {"version": origin["version"], "source": origin.get("source"), "flavor": origin.get("flavor")}


def has_open_roll(stored: Stored | None) -> bool:
    """Whether this host remembers what it ran before a rollout that is not completed."""
    return _open(parse(stored)["roll"])


def restore_target(stored: Stored | None) -> VerifiedDriver:
    """What was verified before the change that is in progress.

    Raises:
        NothingToRestore: no change is in progress, or nothing had been verified before it.
    """
    change = parse(stored)["change"]
    if not change:
        raise NothingToRestore(
            "no driver change is in progress here: the driver is the last known good one, or was never changed"
        )
    if not change["from"]:
        raise NothingToRestore(
            f"the change to {change['to']['version']} was this host's first: no driver was ever verified here before it"
        )
    return change["from"]


def found_before(stored: Stored | None) -> Before | None:
    """What the change that is in progress found; None where its record does not have it."""
    change = parse(stored)["change"]
    return change.get("before") if change else None


def domain_before(stored: StoredRecord) -> str | None:
    """The NVLink domain that the change in progress found: GPUs whose driver is not loaded do not say theirs."""
    change = stored.get("change")
    before = change.get("before") if change else None
    return before.get("nvlink_domain") if before else None


def expected(stored: Stored | None) -> Driver | None:
    """The driver that the host should run now: the target of its change, else what was accepted last."""
    record = parse(stored)
    return record["change"]["to"] if record["change"] else record["verified"]


def _open(roll: Roll | None) -> TypeGuard[Roll]:
    return roll is not None and not roll.get("over")


def _same(one: Driver, other: Driver) -> bool:
    return all(one.get(key) == other.get(key) for key in _DRIVER)
