"""Every port of Lockstep, in one place: units, packet filter, network gate and plan take theirs from here.

What an operator may move (``ray_node_port``, ``ray_node_ports``, ``vllm_server_port``, ``vllm_server_ready_port``) reaches a
host in ``/etc/lockstep/ray.json`` and ``/etc/lockstep/engine.json``; the rest is the same everywhere.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..core import records

RAY_SETTINGS = records.ETC / "ray.json"

PEER_STATUS = 6386
"""``lockstep-hoststatus.socket``: why a host is not in its cluster."""
GATES = range(29600, 29700)
"""All that gates listen on; open between the hosts of a replica."""
RENDEZVOUS = range(29600, 29690)
"""Where rank 0 of a gate listens: whichever is free."""
NETWORK_GATE = 29698
"""Where hosts meet during the network gate, TCP and UDP."""
GATE_SAMPLE = 29697
"""The port that the network gate tries on behalf of ``GATES``."""
FRAMEWORKS = (range(5557, 5558), range(5600, 5608), range(5710, 5718), range(8998, 8999), range(29500, 29600))
"""What vLLM and torch listen on by default when asked for more than Lockstep sets up: KV events, the side channels of NIXL, of
the encoder's cache and of P2P, Mooncake's bootstrap, rendezvous of torch and of data parallelism (vllm 0.32: envs.py and
config/parallel.py)."""


@dataclasses.dataclass(frozen=True)
class RayPorts:
    """Where Ray listens; the same on every host.

    Attributes:
        gcs: on the head alone.
        dashboard: on the head alone, and there on loopback.
        autoscaler_metrics: on the head alone.
        dashboard_metrics: on the head alone.
        workers_first: first of a range from which Ray takes what is free.
    """

    gcs: int = 6379
    node_manager: int = 6380
    object_manager: int = 6381
    runtime_env_agent: int = 6382
    dashboard_agent: int = 6383
    dashboard_agent_grpc: int = 6384
    metrics: int = 6385
    autoscaler_metrics: int = 6387
    dashboard_metrics: int = 6388
    dashboard: int = 8265
    workers_first: int = 20000
    workers_last: int = 20999

    @classmethod
    def parse(cls, record: Mapping[str, Any] | None) -> RayPorts:
        """From ``ray.json``; what it leaves out keeps its default. Raises ValueError for a name that is none of these."""
        given = (record or {}).get("ports", {})
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"ray_node_ports: unknown {', '.join(unknown)}; known are {', '.join(known)}")
        return cls(**{name: int(port) for name, port in given.items()})

    @property
    def on_every_host(self) -> tuple[int, ...]:
        return (
            self.node_manager,
            self.object_manager,
            self.runtime_env_agent,
            self.dashboard_agent,
            self.dashboard_agent_grpc,
            self.metrics,
        )


@dataclasses.dataclass(frozen=True)
class EnginePorts:
    """Where the head serves: vLLM's API, and the supervisor's ``GET /ready``."""

    api: int = 8000
    ready: int = 8001

    @classmethod
    def parse(cls, record: Mapping[str, Any] | None) -> EnginePorts:
        """From ``engine.json``; what it leaves out keeps its default."""
        given = record or {}
        return cls(int(given.get("port", cls.api)), int(given.get("ready_port", cls.ready)))


def ray_ports() -> RayPorts:
    """Ray's ports on this host."""
    return RayPorts.parse(records.read(RAY_SETTINGS))


def engine_ports() -> EnginePorts:
    """The engine's ports, as this host's record has them."""
    return EnginePorts.parse(records.read(records.ENGINE_CONFIG))


def listened_on(ray: RayPorts, engine: EnginePorts, head: bool) -> tuple[int, ...]:
    """Every port that a host must have free, in order; of ranges, whose takers pass over what is taken, none."""
    of_head = (ray.gcs, ray.autoscaler_metrics, ray.dashboard_metrics, ray.dashboard, engine.api, engine.ready)
    return tuple(sorted({*ray.on_every_host, PEER_STATUS, NETWORK_GATE, *(of_head if head else ())}))


def named(ray: RayPorts, engine: EnginePorts, head: bool) -> dict[str, range]:
    """Every port and range that a host's units and gates may listen on, by what moves it, or by what it is for."""
    single = {
        **{
            f"ray_node_ports: {field.name}": getattr(ray, field.name)
            for field in dataclasses.fields(ray)
            if field.name not in ("workers_first", "workers_last", "gcs")
            and (head or getattr(ray, field.name) in ray.on_every_host)
        },
        "the status for peers": PEER_STATUS,
        **(
            {"ray_node_port": ray.gcs, "vllm_server_port": engine.api, "vllm_server_ready_port": engine.ready}
            if head
            else {}
        ),
    }
    ranges = {"ray_node_ports: workers_first to workers_last": range(ray.workers_first, ray.workers_last + 1)}
    return {name: range(port, port + 1) for name, port in single.items()} | ranges | {"the gates": GATES}


def clashes(ports: Mapping[str, range]) -> Iterator[tuple[str, str, range]]:
    """Pairs that overlap, with what they share."""
    for (one, first), (other, second) in itertools.combinations(ports.items(), 2):
        if both := shared(first, second):
            yield one, other, both


def shared(first: range, second: range) -> range:
    """The ports that are in both; empty where none is."""
    return range(max(first.start, second.start), min(first.stop, second.stop))


def closed(ray: RayPorts, engine: EnginePorts | None, chosen: Sequence[range]) -> tuple[range, ...]:
    """Every port that only the packet filter opens, TCP and UDP, in order and without overlap.

    Args:
        ray: the same on every host.
        engine: on the head; None elsewhere.
        chosen: what the kernel hands out to whoever asks for any port, as vLLM, torch, NCCL and Gloo do.
    """
    single = [*ray.on_every_host, ray.gcs, ray.autoscaler_metrics, ray.dashboard_metrics, ray.dashboard, PEER_STATUS]
    single += [engine.api, engine.ready] if engine else []
    workers = range(ray.workers_first, ray.workers_last + 1)
    return merged([*(range(port, port + 1) for port in single), workers, GATES, *FRAMEWORKS, *chosen])


def merged(ranges: Iterable[range]) -> tuple[range, ...]:
    """The same numbers in as few ranges as possible, in order."""
    found: list[range] = []
    for one in sorted((some for some in ranges if some), key=lambda some: some.start):
        if found and one.start <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, one.stop))
        else:
            found.append(one)
    return tuple(found)


def reached_by_peers(ray: RayPorts) -> tuple[int, ...]:
    """What hosts of a replica must reach on one another; of a range both ends, or one that stands for it."""
    everywhere = (ray.node_manager, ray.object_manager, ray.runtime_env_agent, ray.dashboard_agent_grpc, ray.metrics)
    return (*everywhere, ray.workers_first, ray.workers_last, GATE_SAMPLE)


def reached_on_head(ray: RayPorts, engine: EnginePorts) -> tuple[int, ...]:
    """What they must reach on the head besides."""
    return (ray.gcs, engine.api, engine.ready)
