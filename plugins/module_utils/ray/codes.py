"""Codes of the Ray package, for programs; the text beside them is for people."""

from __future__ import annotations

from ..core.codes import Code


class RankState(Code):
    """What the kernel says of a rank's process."""

    RUNS = "runs"
    """It computes or waits: both look alike from outside."""
    STOPPED = "stopped"
    """By a signal or a debugger (state T)."""
    UNKILLABLE = "unkillable"
    """Inside the kernel, often its driver, for as long as was looked (state D)."""


class Cause(Code):
    """Why a host does not count in its replica's Ray cluster."""

    UNREACHABLE = "unreachable"
    """It gives no status on port 6386."""
    CHANGING = "changing"
    """In quarantine by a run that changes it and will lift that itself."""
    QUARANTINED = "quarantined"
    DRIVER_NOT_LOADED = "driver_not_loaded"
    NOT_ADMITTED = "not_admitted"
    """The condition of its Ray unit refused: no valid host stamp."""
    UNIT_ABSENT = "unit_absent"
    UNIT_NOT_STARTED = "unit_not_started"
    UNIT_FAILED = "unit_failed"
    TOKEN_REFUSED = "token_refused"
    VERSION_REFUSED = "version_refused"
    ADDRESS_ABSENT = "address_absent"
    """Its own address is on none of its interfaces."""
    WRONG_ADDRESS = "wrong_address"
    """It joined under another address than its own."""
    WAITING_FOR_HEAD = "waiting_for_head"
    JOINING = "joining"
    DRAINING = "draining"
    DEAD = "dead"
    """Ray has declared its node dead."""
    SILENT = "silent"
    """Ray counts it, but its node manager accepts no connection."""
    TOO_FEW_GPUS = "too_few_gpus"
    GPUS_HELD = "gpus_held"
    WRONG_LABELS = "wrong_labels"


FINAL: frozenset[Cause] = frozenset(
    {
        Cause.QUARANTINED,
        Cause.NOT_ADMITTED,
        Cause.UNIT_ABSENT,
        Cause.UNIT_FAILED,
        Cause.TOKEN_REFUSED,
        Cause.VERSION_REFUSED,
        Cause.ADDRESS_ABSENT,
        Cause.WRONG_ADDRESS,
        Cause.TOO_FEW_GPUS,
        Cause.WRONG_LABELS,
    }
)
"""Causes that no waiting removes: somebody has to act."""


class WaitCode(Code):
    """How a wait for resources ended."""

    READY = "ready"
    HOPELESS = "hopeless"
    """Waiting longer cannot help."""
    IMPOSSIBLE = "impossible"
    """More is asked for than the inventory declares."""
    DEADLINE = "deadline"


class DrainCode(Code):
    """How draining a host's node ended."""

    DRAINED = "drained"
    """Nobody holds one of its GPUs."""
    BUSY = "busy"
    """Somebody still does, at the deadline."""
    ABSENT = "absent"
    """It has no living node."""
    DECLINED = "declined"
    """By Ray."""
    HEAD_AWAY = "head_away"


class StartCode(Code):
    """What keeps this host's Ray from starting, or that nothing does, as ``/run/lockstep/ray.json`` has it."""

    STARTING = "starting"
    ADDRESS_ABSENT = Cause.ADDRESS_ABSENT.value
    WAITING_FOR_HEAD = Cause.WAITING_FOR_HEAD.value
    TOKEN_REFUSED = Cause.TOKEN_REFUSED.value
    VERSION_REFUSED = Cause.VERSION_REFUSED.value
