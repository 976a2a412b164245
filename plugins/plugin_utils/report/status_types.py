"""What a status is made from and what it is; docs/reference/status.md lists the keys of the latter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from ansible_collections.lockstep.vllm.plugins.module_utils.host.state import HostState, Record


class Answer(TypedDict, total=False):
    reachable: bool
    error: str | None
    state: HostState | None


class Declared(TypedDict, total=False):
    head: str
    hosts: Sequence[str]
    zone: str | None


class Probe(TypedDict, total=False):
    """``Cluster.probed``, with the heads' Ray; of a host's state any part may be missing or only an error."""

    replicas: Mapping[str, Declared]
    routers: Sequence[str]
    hosts: Mapping[str, Answer]


class Gpus(TypedDict):
    total: float | None
    used: float | None
    missing: float | None


class HostGpus(Gpus):
    declared: int | None


class HostStatus(TypedDict):
    host: str
    role: str
    reachable: bool
    driver: str | None
    driver_problem: str
    stamp: str
    filter: str
    tunnel: str
    tunnel_handshakes: dict[str, float | None]
    quarantine: Record | None
    ray: str
    gpus: HostGpus
    since: str | None
    reason: str


class SuspectProcess(TypedDict):
    """A process of an engine, or a whole host; ``rank`` is None where it is no rank, or not known."""

    host: str
    rank: int | None
    pid: int | None


class SuspectStatus(TypedDict):
    """Who keeps, or kept last, an engine from generating; ``code`` is one of ``engine.states.SuspectCode``."""

    code: str
    reason: str
    where: list[SuspectProcess]
    evidence: list[str]


class ReplicaStatus(TypedDict):
    replica: str
    zone: str | None
    head: str
    serving: bool
    engine: str
    layout: str | None
    tensor_parallel_size: int | None
    pipeline_parallel_size: int | None
    rung: str | None
    since: str | None
    last_completion: str | None
    restarts: int | None
    stamp: str
    gpus: Gpus
    reason: str
    suspect: SuspectStatus | None
    advice: list[str]
    hosts: list[HostStatus]


class RouterStatus(TypedDict):
    host: str
    running: bool
    since: str | None
    reason: str


class UnexpectedStatus(TypedDict):
    """What the inventory does not want; ``code`` is one of ``rollout.unexpected.UnexpectedCode``."""

    code: str
    name: str
    seen_on: str
    serving: bool
    cause: str
    next: str


class Status(TypedDict):
    at: str | None
    replicas: list[ReplicaStatus]
    routers: list[RouterStatus]
    unexpected: list[UnexpectedStatus]
    unanswered: list[str]
    lock: Record | None
    request: Record | None
