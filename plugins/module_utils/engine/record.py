"""What the engine's supervisor reports, as it lies in /run/lockstep/engine.json: written by the user who serves, read by root.

The probe brings this file to every host, so it imports little.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..core import records, typed
from ..core.wording import many
from .states import Phase, SuspectCode, Verdict


@dataclasses.dataclass(frozen=True)
class RungState:
    """What is shown of a rung: proven, with a remark where one is due, or why it failed.

    Attributes:
        seconds: that its start took, to the proof; 0 where it is not known.
        at: when it was tried, RFC 3339.
    """

    verdict: Verdict
    note: str = ""
    seconds: float = 0.0
    at: str = ""

    def __str__(self) -> str:
        if self.verdict is Verdict.FAILED:
            return self.note
        return f"proven ({self.note})" if self.note else "proven"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A known line of the engine's log that occurred.

    Attributes:
        level: ``info``, ``warning`` or ``error``.
        line: its first occurrence.
        count: how often it occurred.
    """

    id: str
    level: str
    finding: str
    remediation: str
    source: str
    line: str
    count: int


@dataclasses.dataclass(frozen=True)
class Where:
    """A process of the engine, or a whole host.

    Attributes:
        host: its inventory name.
        rank: its number; None for a process that is no rank, and where it is not known.
        pid: None for a whole host.
    """

    host: str
    rank: int | None = None
    pid: int | None = None


@dataclasses.dataclass(frozen=True)
class Suspect:
    """Who keeps an engine from generating, as far as the stacks on its hosts tell.

    Attributes:
        reason: for people; names host and rank.
        where: whom it is about, at most eight.
        evidence: ``host:folder`` of the stacks, those of its own hosts first.
    """

    code: SuspectCode
    reason: str
    where: tuple[Where, ...] = ()
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.evidence:
            return self.reason
        others = f" and on {many(len(self.evidence) - 1, 'other host')}" if len(self.evidence) > 1 else ""
        return f"{self.reason}; stacks in {self.evidence[0]}{others}"


@dataclasses.dataclass(frozen=True)
class EngineState:
    """What runs now and why.

    Attributes:
        reason: why it is in this phase, for people.
        since: when the phase began, RFC 3339.
        ready: what ``GET /ready`` answers.
        layout: name of the layout that runs or starts; None while there is none.
        tensor_parallel_size: of that layout.
        pipeline_parallel_size: of that layout.
        rung: of the ladder, that runs or starts.
        ladder: what is known of each rung that was tried.
        last_completion: when a token was last seen, RFC 3339.
        last_failure: how the engine last ended or failed to start; empty when it never did.
        restarts: how often the engine was started again since the supervisor began.
        failures: failures in a row.
        pid: of the supervisor.
        findings: advice from the log.
        evidence: files saved at the last failure.
        suspect: who keeps it from generating, while no token comes; then, of the last silence or hanging start that ended it.
    """

    phase: Phase
    reason: str = ""
    since: str = ""
    ready: bool = False
    layout: str | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    rung: str | None = None
    ladder: Mapping[str, RungState] = dataclasses.field(default_factory=dict)
    last_completion: str | None = None
    last_failure: str = ""
    restarts: int = 0
    failures: int = 0
    pid: int = 0
    findings: tuple[Finding, ...] = ()
    evidence: tuple[str, ...] = ()
    suspect: Suspect | None = None

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> EngineState:
        """From engine.json; a key that it does not know is passed over.

        Raises:
            RecordError: it is no such record.
        """
        try:
            return typed.parse(cls, record, typed.NEWER)
        except typed.BadAnswer as error:
            raise records.RecordError(f"{records.ENGINE_STATE}: {error}") from error

    def __str__(self) -> str:
        return f"{self.phase}: {self.reason}" if self.reason else str(self.phase)
