"""What every gate yields, whoever runs it and whatever it checks."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Verdict = Literal["pass", "fail", "timeout"]


@dataclasses.dataclass(frozen=True)
class GateResult:
    """The outcome of one gate on one host, pair or replica.

    Attributes:
        gate: ``driver``, ``network``, ``nccl``, ``graph`` or ``engine``.
        verdict: ``pass``, ``fail``, or ``timeout`` when its deadline ended it.
        seconds: wall time that it took.
        code: a short fixed word for programs (``ok``, ``wrong_sum``, ``capture_hangs``, …).
        host: the host that is to blame or that was checked; None for a replica as a whole.
        pair: the two hosts, where only the pair is at fault.
        measured: figures with their units in the key (``busbw_gbps``, ``seconds``).
        floor: what ``measured`` was held against, same keys.
        backend: ``nccl`` or ``gloo``; None where no collective ran.
        evidence: absolute paths on the host that ran the gate.
        cause: the cause in words; empty on a pass.
        next: the next command to type; empty on a pass.
        warnings: what the operator should know though the gate passed.
    """

    gate: str
    verdict: Verdict
    seconds: float
    code: str = "ok"
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

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, as modules return it and stamps keep it."""
        record = dataclasses.asdict(self)
        record["pair"] = list(self.pair) if self.pair else None
        record["evidence"] = list(self.evidence)
        record["warnings"] = list(self.warnings)
        return record
