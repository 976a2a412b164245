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
            replicas.append(_of_replica(replica.name, _url("http", replica.addresses[replica.head], port), settings))
    through: dict[str, dict[str, Any]] = {}  # by URL: routers that share a name or an address are one to clients
    for host, address in routers.items():
        if replicas and host in wanted and wanted[host].settings.get("vllm_haproxy_api_port"):
            settings = wanted[host].settings
            one = {**replicas[0], "name": host, "router": True, "url": router_url(settings, address)}
            if secure(settings) and settings.get("vllm_haproxy_tls_ca"):
                one["ca"] = str(settings["vllm_haproxy_tls_ca"])
            through.setdefault(one["url"], one)
    return [*through.values(), *replicas]


def secure(settings: Mapping[str, Any]) -> bool:
    """Whether a router with these variables speaks TLS to clients."""
    return bool(settings.get("vllm_haproxy_tls_certificate"))


def router_name(settings: Mapping[str, Any], address: str) -> str:
    """How clients name a router with these variables: as is declared for them, else by the shared address, else by its own."""
    shared = str(settings.get("vllm_haproxy_virtual_address") or "").partition("/")[0]
    return str(settings.get("vllm_haproxy_api_name") or shared or address)


def router_url(settings: Mapping[str, Any], address: str) -> str:
    """Where clients reach the API through a router with these variables."""
    scheme, port = ("https", "vllm_haproxy_tls_port") if secure(settings) else ("http", "vllm_haproxy_api_port")
    return _url(scheme, router_name(settings, address), settings[port])


def _url(scheme: str, name: str, port: Any) -> str:
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/v1"


def _of_replica(name: str, url: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "router": False,
        "url": url,
        "model": str(settings.get("vllm_server_served_model_name") or settings["vllm_server_model"]),
        "key": bool(settings.get("vllm_server_api_key")),
        "prompt": str(settings.get("vllm_server_proof_prompt") or ""),
        "max_tokens": settings.get("vllm_server_proof_max_tokens") or 16,
    }
