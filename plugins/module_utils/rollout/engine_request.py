"""The engine as the inventory declares it, and the lock of its environment: what is wrong with them by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .findings import Finding, refuse, warn
from .needs import Desired
from .observed import HostState
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


def key_findings(replica: Replica, states: Mapping[str, HostState]) -> Iterator[Finding]:
    """Of a key that clients have and the engine would not take any more: they would be answered 401 from its wave on."""
    state = states.get(replica.head)
    if state is not None and state.preflight.drops_api_key:
        yield warn(
            f"{replica.head} ({replica.name}): clients that send the key in use are answered 401 once {replica.name} is "
            "changed: unless it has leaked, put it into vllm_server_api_keys_previous until they have moved "
            "(docs/how-to/rotate-secrets.md)"
        )
