"""What the ranks of one host are asked to do; it goes to them as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypedDict


class Params(TypedDict, total=False):
    """Parameters of works; what is left out is that work's default for the backend (``defaults`` of each).

    Attributes:
        busbw_bytes: ``collectives``: message size for the bandwidth; 0 measures none.
        compiled: ``graphs``: capture what torch.compile makes of the layer, not its plain kernels.
        kernel: ``vllm_kernels``: which.
    """

    busbw_bytes: int
    compiled: bool
    kernel: str


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of what the ranks shall do, with a time of its own.

    Attributes:
        name: what its steps, its verdict and its evidence go by.
        work: ``collectives``, ``graphs`` or ``vllm_kernels``.
        params: for the work.
        seconds: that it may take, from the end of the part before it; of the first, from the start of the ranks.
    """

    name: str
    work: str
    params: Params
    seconds: float


@dataclasses.dataclass(frozen=True)
class Job:
    """What the ranks of one host shall do, with one start: one load of torch, one process group.

    Attributes:
        parts: of the work, one after the other.
        host: this host's inventory name.
        first: the first rank of this host.
        here: number of ranks on this host.
        world: number of ranks on all hosts.
        master: address and port where rank 0 listens.
        interface: the interface that NCCL and gloo shall use; None for a rank group on one host.
        backend: ``auto``, ``nccl`` or ``gloo``.
    """

    parts: Sequence[Part]
    host: str
    first: int
    here: int
    world: int
    master: tuple[str, int]
    interface: str | None = None
    backend: str = "auto"
