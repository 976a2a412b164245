"""What is asked of the gates that rank groups run: of which hosts, for how long, and which parts of work that makes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from ..core import records, typed
from .ranks.job import Params, Part

RankGate = Literal["nccl", "graph"]
Captured = Literal["plain", "compiled", "custom_all_reduce", "symmetric_memory", "flashinfer_attention"]
"""What the graph gate captures: kernels as torch calls them, what torch.compile makes of them, and kernels of vLLM's own."""
CAPTURED: tuple[Captured, ...] = get_args(Captured)
"""In the order in which they are tried."""


def part_name(captured: Captured) -> str:
    """The part of a rank group's work that captures this."""
    return "graph" if captured == "plain" else f"graph-{captured}"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked of one gate.

    Attributes:
        gate: which.
        deadline: seconds that each part of its work may take; the first of all includes the start of the ranks.
        params: for the work; what is left out is the work's default for the backend.
        floor_gbps: NCCL gate: busbw floor that wins over the table.
        link: NCCL gate: ``auto`` or one of the table's links.
        slowest_replay_ratio: graph gate: a replay may take so many times as long as eager; 0 demands no time.
        capture: graph gate: what it captures, each a part of its own.
    """

    gate: RankGate
    deadline: float
    params: Params = dataclasses.field(default_factory=Params)
    floor_gbps: float | None = None
    link: str = "auto"
    slowest_replay_ratio: float = 0.0
    capture: tuple[Captured, ...] = ("plain",)

    def parts(self) -> list[Part]:
        """The parts of work that it takes, in their order."""
        if self.gate == "nccl":
            return [Part("nccl", "collectives", self.params, self.deadline)]
        return [Part(part_name(one), *self._work(one), self.deadline) for one in CAPTURED if one in self.capture]

    def seconds(self) -> float:
        """What its parts may take together."""
        return sum(part.seconds for part in self.parts())

    def _work(self, captured: Captured) -> tuple[str, Params]:
        if captured in ("plain", "compiled"):
            return "graphs", {**self.params, "compiled": captured == "compiled"}
        return "vllm_kernels", {"kernel": captured}


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of one rank group: the gates, one after the other, by the same ranks.

    Attributes:
        scope: ``host`` runs on this host alone; ``replica`` across all its hosts, through Ray, from the head.
        gates: in their order.
        run: names the evidence folder.
        backend: ``auto`` takes nccl where torch sees a GPU, else gloo.
        hosts: names of a replica's hosts that take part; None takes all.
        bisect: after a failure that names no host, spend rounds of trials to find it.
        environment: variables for the ranks.
        user: who the ranks run as; None keeps the caller.
        python: interpreter with torch (and Ray).
        library: folder that holds the package ``lockstep``.
    """

    scope: Literal["host", "replica"]
    gates: tuple[Asked, ...]
    run: str = "by-hand"
    backend: str = "auto"
    hosts: tuple[str, ...] | None = None
    bisect: bool = True
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    user: str | None = "lockstep"
    python: str = str(records.RUNTIME / "bin" / "python")
    library: str = str(records.LIB)

    @property
    def first(self) -> RankGate:
        """The gate that answers for what keeps all of them from beginning."""
        return self.gates[0].gate

    def parts(self) -> list[Part]:
        """The parts of all gates, in their order."""
        return [part for asked in self.gates for part in asked.parts()]

    def evidence(self, folders: Mapping[RankGate, Path]) -> dict[str, Path]:
        """Each part's folder for evidence, below that of its gate."""
        return {
            part.name: folders[asked.gate] if part.name == asked.gate else folders[asked.gate] / part.name
            for asked in self.gates
            for part in asked.parts()
        }

    def seconds(self) -> float:
        """What all parts may take together."""
        return sum(asked.seconds() for asked in self.gates)


def request_of(record: Mapping[str, Any]) -> Request:
    """A request from ``dataclasses.asdict``."""
    return typed.parse(Request, record)
