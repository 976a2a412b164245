"""The memory of a driver change, kept on the host: what was verified before, and what the host is on its way to.

``/var/lib/lockstep/driver.json``::

    {"verified": {"version": "550.90.07", "source": "nvidia", "flavor": "open", "at": "…"} or null,
     "change": {"from": what "verified" was, "to": "550.127.05", "began": "…"} or null}

A change begins before the first package is touched and ends when the host was accepted: when its gates passed on the new
version and it was let in again. Until then ``change.from`` says where ``restore`` leads, whatever was killed in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]
NOTHING: Record = {"verified": None, "change": None}


class NothingToRestore(Exception):
    """There is no driver to go back to; the message says why."""


class NotRunning(Exception):
    """The driver that is to be accepted does not run; the message names both."""


def begin(record: Record | None, wanted: Record, now: str) -> dict[str, Any]:
    """The record once a change to ``wanted`` (version, source, flavor) begins. Beginning it again keeps its origin.

    A host that is on its way to X and is now sent to Y still remembers what was verified before X.
    """
    known = record or NOTHING
    verified, change = known.get("verified"), known.get("change")
    origin = change["from"] if change else verified
    if origin and _same(origin, wanted):
        return {"verified": verified, "change": change and {**change, "to": dict(wanted), "began": change["began"]}}
    if change and _same(change["to"], wanted):
        return {"verified": verified, "change": dict(change)}
    return {"verified": verified, "change": {"from": origin, "to": dict(wanted), "began": now}}


def accept(record: Record | None, declared: Record, loaded: str | None, now: str) -> dict[str, Any]:
    """The record once the driver passed its gates and serves: the change is over, the next one starts from here.

    What was accepted is what the host was on its way to (after a restore, that is not what is ``declared``); a host
    that was never changed is taken to run what is declared.

    Raises:
        NotRunning: another driver is ``loaded``.
    """
    known = record or NOTHING
    change, verified = known.get("change"), known.get("verified")
    running = change["to"] if change else verified or declared
    if running["version"] != loaded:
        raise NotRunning(f"driver {running['version']} cannot be accepted: {loaded or 'none'} is loaded")
    if verified and _same(verified, running):
        return {"verified": verified, "change": None}
    return {
        "verified": {**{key: running.get(key) for key in ("version", "source", "flavor")}, "at": now},
        "change": None,
    }


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


def _same(one: Record, other: Record) -> bool:
    return all(one.get(key) == other.get(key) for key in ("version", "source", "flavor"))
