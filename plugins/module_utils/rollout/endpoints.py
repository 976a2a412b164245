"""Where clients reach the cluster that the inventory declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from .needs import Desired
from .settings import Settings
from .topology import Topology


class Endpoint(TypedDict):
    """Where requests go, and what a first one would be; plugins/modules/plan.py documents the keys."""

    name: str
    router: bool
    url: str
    model: str
    key: bool
    prompt: str
    max_tokens: int


def endpoints(topology: Topology, wanted: Mapping[str, Desired], routers: Mapping[str, str]) -> list[Endpoint]:
    """The routers, then every replica; plugins/modules/plan.py documents the keys.

    Args:
        routers: router to its address. Requests through one are for whichever replica is ready.
    """
    replicas: list[Endpoint] = []
    for replica in topology.replicas:
        head = wanted.get(replica.head)
        settings: Settings = {} if head is None else head.settings
        if settings.get("vllm_server_model"):
            url = _url(replica.addresses[replica.head], settings.get("vllm_server_port") or 8000)
            replicas.append(_endpoint(replica.name, url, settings))
    through: list[Endpoint] = [
        {**replicas[0], "name": host, "router": True, "url": _url(routers[host], port)}
        for host in routers
        if replicas and host in wanted and (port := wanted[host].settings.get("vllm_haproxy_api_port"))
    ]
    return [*through, *replicas]


def _url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}/v1" if ":" in address else f"http://{address}:{port}/v1"


def _endpoint(name: str, url: str, settings: Settings) -> Endpoint:
    return {
        "name": name,
        "router": False,
        "url": url,
        "model": str(settings.get("vllm_server_served_model_name") or settings["vllm_server_model"]),
        "key": bool(settings.get("vllm_server_api_key")),
        "prompt": str(settings.get("vllm_server_proof_prompt") or ""),
        "max_tokens": settings.get("vllm_server_proof_max_tokens") or 16,
    }
