"""Every state of an engine: what it is in, how it ends, what is known of a rung, what is requested of it."""

from __future__ import annotations

import dataclasses

from ..core.codes import Code
from ..core.errors import StopError


class Phase(Code):
    """What the supervisor is doing. docs/operations/serving.md shows the order."""

    WAITING = "waiting"
    """For the resources of a layout."""
    STARTING = "starting"
    """vLLM starts on one rung of the ladder."""
    PROVING = "proving"
    """Completions are compared with the expected ones."""
    SERVING = "serving"
    DRAINING = "draining"
    """Takes no new traffic; running requests end."""
    DRAINED = "drained"
    """No request runs; the engine stays up."""
    BACKOFF = "backoff"
    """The engine failed and starts again soon."""
    STOPPED = "stopped"
    """The unit was stopped."""
    GIVEN_UP = "given_up"
    """Starting again cannot help: somebody has to act."""


PROVEN_ENGINE = frozenset({Phase.SERVING, Phase.DRAINING, Phase.DRAINED})
"""Phases in which a proven engine runs."""


class EndCode(Code):
    """How an engine's life, or a trial of a rung, ended."""

    OK = "ok"
    """It did not: it is proven."""
    START_DIES = "start_dies"
    START_HANGS = "start_hangs"
    NO_COMPLETION = "no_completion"
    DIFFERS = "differs"
    """Its completions are not those of the eager engine."""
    MEMBERS_LOST = "members_lost"
    """A host went; no rung is to blame."""
    DIED = "died"
    """While it served."""
    WEDGED = "wedged"
    """Its process runs but generates nothing."""
    MOVE_UP = "move_up"
    """Ended by us, for a better layout."""
    RUNG_FAILS = "rung_fails"
    """Its rung was to blame: the one below is started."""


class SuspectCode(Code):
    """What the hosts' stacks say of an engine that generates nothing; the first that is true."""

    STOPPED = "stopped"
    """A process of it is stopped by a signal or a debugger."""
    UNKILLABLE = "unkillable"
    """A rank is inside the kernel and stays there."""
    NO_RANK = "no_rank"
    """A host answers and has no rank."""
    SILENT_HOST = "silent_host"
    """A host does not answer, or could not look at its ranks."""
    ODD = "odd"
    """One rank is elsewhere than all the others, who are in one place."""
    DIFFER = "differ"
    """The ranks are in different places."""
    ALIKE = "alike"
    """All ranks are in the same place."""
    UNSEEN = "unseen"
    """Every rank runs, and where it is may not be seen."""


class Verdict(Code):
    """What is known of a rung."""

    PROVEN = "proven"
    FAILED = "failed"


class Target(Code):
    """Where an operator or a play wants the engine."""

    SERVING = "serving"
    DRAINED = "drained"


class GiveUp(StopError):
    """Starting again cannot help."""


@dataclasses.dataclass(frozen=True)
class End:
    """How an engine's life ended.

    Attributes:
        cause: for people.
        seconds: how long it served.
        evidence: files saved at its end.
    """

    code: EndCode
    cause: str = ""
    seconds: float = 0.0
    evidence: tuple[str, ...] = ()
