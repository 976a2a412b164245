"""The engine as the inventory declares it, and the lock of its environment: what is wrong with them by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .findings import Finding, refuse
from .needs import Desired
from .topology import Replica


def findings(replica: Replica, desired: Mapping[str, Desired], problems: Sequence[str]) -> Iterator[Finding]:
    """Of one replica.

    Args:
        desired: what the inventory declares.
        problems: of the engine.json that its head would get.
    """
    head = replica.head
    if not desired[head].settings.get("vllm_server_model"):
        yield refuse(
            f"{head} ({replica.name}): vllm_server_model is not set: write the path that every host of the replica has, or a "
            "name that vLLM can fetch; see inventories/examples"
        )
    for problem in problems:
        yield refuse(f"{head} ({replica.name}): {problem}")
    hosts_of: dict[str, list[str]] = {}
    for host in replica.hosts:
        problem_of_environment = desired[host].environment_problem if host in desired else None
        if problem_of_environment:
            hosts_of.setdefault(problem_of_environment, []).append(host)
    for problem, hosts in hosts_of.items():
        yield refuse(f"{', '.join(hosts)} ({replica.name}): {problem}")
