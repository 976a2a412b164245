"""The packet filter that a host's variables ask for: entries that mean nothing, and limits that no filter would hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..ray import firewall
from .findings import Finding, refuse
from .settings import Settings


def findings(host: str, settings: Settings) -> Iterator[Finding]:
    """What is wrong with it."""
    if not settings.get("gpu_host_filter"):
        if settings.get("gpu_host_filter_egress") is not None:
            yield refuse(
                f"{host}: gpu_host_filter_egress without gpu_host_filter: nothing would hold it; set gpu_host_filter: true"
            )
        return
    clients = (entry for entry in settings.get("gpu_host_filter_clients") or () if entry != firewall.CONTROLLER)
    for problem in (
        *_problems("gpu_host_filter_clients", clients, firewall.networks),
        *_problems("gpu_host_filter_open", settings.get("gpu_host_filter_open") or (), firewall.opening),
        *_problems("gpu_host_filter_egress", settings.get("gpu_host_filter_egress") or (), firewall.networks),
    ):
        yield refuse(f"{host}: {problem}")


def _problems(name: str, entries: Iterable[object], read: Callable[..., object]) -> Iterator[str]:
    for entry in entries:
        try:
            read(entry)
        except ValueError as error:
            yield f"{name}: {str(error).removeprefix(f'{name}: ')}"
