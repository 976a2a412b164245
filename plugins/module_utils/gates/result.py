"""What every gate yields, whoever runs it and whatever it checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Literal

from ..core import typed
from ..core.errors import StopError
from .codes import Code

Verdict = Literal["pass", "fail", "timeout"]


class CannotRun(StopError):
    """The gate could not begin."""


@dataclasses.dataclass(frozen=True)
class GateResult:
    """The outcome of one gate on one host, pair or replica.

    Attributes:
        gate: ``driver``, ``network``, ``nccl``, ``graph`` or ``engine``.
        verdict: ``pass``, ``fail``, or ``timeout`` when its deadline ended it.
        seconds: wall time that it took.
        code: what was found, for programs.
        host: the host that is to blame or that was checked; None for a replica as a whole.
        pair: the two hosts, where only the pair is at fault.
        measured: figures with their units in the key (``busbw_gbps``, ``seconds``).
        floor: what ``measured`` was compared with, same keys.
        backend: ``nccl`` or ``gloo``; None where no collective ran.
        evidence: absolute paths on the host that ran the gate.
        cause: the cause, for people; empty on a pass.
        next: the next command to type; empty on a pass.
        warnings: what the operator should know though the gate passed.
    """

    gate: str
    verdict: Verdict
    seconds: float
    code: Code = Code.OK
    host: str | None = None
    pair: tuple[str, str] | None = None
    measured: dict[str, Any] = dataclasses.field(default_factory=dict)
    floor: dict[str, Any] = dataclasses.field(default_factory=dict)
    backend: str | None = None
    evidence: tuple[str, ...] = ()
    cause: str = ""
    next: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> GateResult:
        """A result from its JSON form.

        Raises:
            BadAnswer: a key is missing, unknown or of another type, or the code or the verdict is none of a gate.
        """
        return typed.parse(cls, record)

    def is_of(self, gate: str, hosts: Collection[str]) -> bool:
        """Whether this is about this gate and these hosts: ranks, which run as a user, speak for no other."""
        named = {self.host, *(self.pair or ())} - {None}
        return self.gate == gate and named <= set(hosts)
