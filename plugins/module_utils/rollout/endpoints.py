"""Where clients reach the cluster that the inventory declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from ..ray.ports import EnginePorts
from .needs import Desired
from .settings import Settings
from .topology import Topology


class _Reached(TypedDict):
    name: str
    router: bool
    url: str
    model: str
    key: bool
    prompt: str
    max_tokens: int


class Endpoint(_Reached, total=False):
    """Where requests go, and what a first one would be; plugins/modules/plan.py documents the keys."""

    ca: str


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
            url = _url("http", replica.addresses[replica.head], settings.get("vllm_server_port") or EnginePorts.api)
            replicas.append(_endpoint(replica.name, url, settings))
    through: dict[str, Endpoint] = {}  # by URL: routers that share a name or an address are one to clients
    for host, address in routers.items():
        if replicas and host in wanted and wanted[host].settings.get("vllm_haproxy_api_port"):
            mine = wanted[host].settings
            one: Endpoint = {**replicas[0], "name": host, "router": True, "url": router_url(mine, address)}
            ca = mine.get("vllm_haproxy_tls_ca")
            if secure(mine) and ca:
                one["ca"] = str(ca)
            through.setdefault(one["url"], one)
    return [*through.values(), *replicas]


def secure(settings: Settings) -> bool:
    """Whether a router with these variables speaks TLS to clients."""
    return bool(settings.get("vllm_haproxy_tls_certificate"))


def router_name(settings: Settings, address: str) -> str:
    """How clients name a router with these variables: as is declared for them, else by the shared address, else by its own."""
    shared = str(settings.get("vllm_haproxy_virtual_address") or "").partition("/")[0]
    return str(settings.get("vllm_haproxy_api_name") or shared or address)


def router_url(settings: Settings, address: str) -> str:
    """Where clients reach the API through a router with these variables."""
    name = router_name(settings, address)
    if secure(settings):
        return _url("https", name, settings["vllm_haproxy_tls_port"])
    return _url("http", name, settings["vllm_haproxy_api_port"])


def _url(scheme: str, name: str, port: int) -> str:
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/v1"


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
