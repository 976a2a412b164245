"""Where clients reach the cluster that the inventory declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .needs import Desired
from .topology import Topology


def endpoints(topology: Topology, wanted: Mapping[str, Desired], routers: Mapping[str, str]) -> list[dict[str, Any]]:
    """The routers, then every replica; plugins/modules/plan.py documents the keys.

    Args:
        routers: router to its address. Requests through one are for whichever replica is ready.
    """
    replicas = []
    for replica in topology.replicas:
        head = wanted.get(replica.head)
        settings = {} if head is None else head.settings
        if settings.get("vllm_server_model"):
            port = settings.get("vllm_server_port") or 8000
            replicas.append(_endpoint(replica.name, False, replica.addresses[replica.head], port, settings))
    through = [
        _endpoint(host, True, routers[host], port, replicas[0])
        for host in routers
        if replicas and host in wanted and (port := wanted[host].settings.get("vllm_haproxy_api_port"))
    ]
    return [*through, *replicas]


def _endpoint(name: str, router: bool, address: str, port: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings``: a head's variables, or, for a router, the endpoint of the first replica."""
    where = f"[{address}]" if ":" in address else address
    if router:
        return {**settings, "name": name, "router": True, "url": f"http://{where}:{port}/v1"}
    return {
        "name": name,
        "router": False,
        "url": f"http://{where}:{port}/v1",
        "model": str(settings.get("vllm_server_served_model_name") or settings["vllm_server_model"]),
        "key": bool(settings.get("vllm_server_api_key")),
        "prompt": str(settings.get("vllm_server_proof_prompt") or ""),
        "max_tokens": settings.get("vllm_server_proof_max_tokens") or 16,
    }
