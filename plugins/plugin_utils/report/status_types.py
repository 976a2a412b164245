"""What a probe has of what a status shows, and what a status is.

Of the probe's parts (module_utils/host/probe.py) any may be missing, None or only an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict


class SmiFailure(TypedDict, total=False):
    text: str


class Driver(TypedDict, total=False):
    loaded_version: str | None
    package_version: str | None
    smi_failure: SmiFailure | None
    error: str


class Unit(TypedDict, total=False):
    active: str
    result: str
    since: str | None


class RayNode(TypedDict, total=False):
    host: str
    alive: bool
    draining: bool
    gpus: float
    gpus_free: float


class Ray(TypedDict, total=False):
    head: str
    nodes: list[RayNode]


class Stamp(TypedDict, total=False):
    fingerprint: Mapping[str, str | None]
    hosts: Mapping[str, str]
    error: str


class Stamps(TypedDict, total=False):
    host: Stamp | None
    replica: Stamp | None


class Quarantine(TypedDict, total=False):
    kind: str
    reason: str
    owner: str
    run: str
    at: str
    error: str


class Engine(TypedDict, total=False):
    phase: str
    ready: bool
    reason: str
    since: str
    layout: str
    tensor_parallel_size: int
    pipeline_parallel_size: int
    rung: str
    last_completion: str
    last_failure: str
    restarts: int
    findings: list[dict[str, str]]
    error: str


class Prepared(TypedDict, total=False):
    gpus: int


class Lock(TypedDict, total=False):
    run: str
    holder: str
    pid: int
    since: str
    heartbeat: str


class Request(TypedDict, total=False):
    action: str
    by: str
    at: str
    reason: str


class HostState(TypedDict, total=False):
    clock: float
    driver: Driver | None
    fingerprint: Mapping[str, str | None] | None
    fingerprint_digest: str
    units: Mapping[str, Unit] | None
    host: Prepared | None
    stamps: Stamps | None
    quarantine: Quarantine | None
    engine: Engine | None
    ray: Ray | None
    lock: Lock | None
    request: Request | None


class Answer(TypedDict, total=False):
    reachable: bool
    error: str | None
    state: HostState | None


class Declared(TypedDict, total=False):
    head: str
    hosts: Sequence[str]
    zone: str | None


class Probe(TypedDict, total=False):
    """What lockstep.vllm.probe returns with ``ray: true``."""

    replicas: Mapping[str, Declared]
    routers: Sequence[str]
    hosts: Mapping[str, Answer]


# What is shown; docs/reference/status.md lists the keys.


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
    quarantine: Quarantine | None
    ray: str
    gpus: HostGpus
    since: str | None
    reason: str


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
    advice: list[str]
    hosts: list[HostStatus]


class RouterStatus(TypedDict):
    host: str
    running: bool
    since: str | None
    reason: str


class Status(TypedDict):
    at: str | None
    replicas: list[ReplicaStatus]
    routers: list[RouterStatus]
    lock: Lock | None
    request: Request | None
