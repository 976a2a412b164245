"""What every gate yields, whoever runs it and whatever it checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ..core import shapes
from ..core.stop import StopError
from ..core.wording import printable
from .codes import Code

Verdict = Literal["pass", "fail", "timeout"]


class CannotRun(StopError):
    """The gate could not begin."""


_TEXT = shapes.maybe(shapes.text)
SHAPE = shapes.record(
    {
        "gate": shapes.text,
        "verdict": shapes.one_of(("pass", "fail", "timeout")),
        "seconds": shapes.number,
        "code": shapes.one_of(list(Code)),
        "host": _TEXT,
        "pair": shapes.maybe(shapes.items(shapes.text)),
        "measured": shapes.record({}),
        "floor": shapes.record({}),
        "backend": _TEXT,
        "evidence": shapes.items(shapes.text),
        "cause": shapes.text,
        "next": shapes.text,
        "warnings": shapes.items(shapes.text),
    },
    needed=("gate", "verdict", "seconds", "code", "pair", "evidence", "warnings"),
)
"""Of a result's JSON form."""


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
            BadAnswer: it is none of a gate; says where.
        """
        SHAPE(record)
        unknown = sorted({*record} - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise shapes.BadAnswer(f"has an unknown {printable(str(unknown[0]))[:40]}")
        fields = {
            **record,
            "code": Code(record["code"]),
            "pair": tuple(record["pair"]) if record["pair"] else None,
            "evidence": tuple(record["evidence"]),
            "warnings": tuple(record["warnings"]),
        }
        return cls(**fields)
