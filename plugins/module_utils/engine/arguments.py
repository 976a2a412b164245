"""Arguments of ``vllm serve`` as data: their spelling, the command line that they become, and those that Lockstep sets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

_RAY = "leave it out: Lockstep runs vLLM on Ray"
_ONE_SERVER = "leave it out: Lockstep runs one `vllm serve` per replica, on its head"
_PLAIN = "leave it out: the supervisor and the routers speak plain HTTP to the head"

OWNED: Mapping[str, str] = {
    "model": "vllm_server_model",
    "model_tag": "vllm_server_model",
    "served_model_name": "vllm_server_served_model_name",
    "tensor_parallel_size": "vllm_server_tensor_parallel_size",
    "tp": "vllm_server_tensor_parallel_size",
    "pipeline_parallel_size": "vllm_server_pipeline_parallel_size",
    "pp": "vllm_server_pipeline_parallel_size",
    "distributed_executor_backend": _RAY,
    "nnodes": _RAY,
    "n": _RAY,
    "node_rank": _RAY,
    "r": _RAY,
    "master_addr": _RAY,
    "master_port": _RAY,
    "dp": "data-parallel-size",
    "dpb": "data-parallel-backend",
    "headless": _ONE_SERVER,
    "data_parallel_rank": _ONE_SERVER,
    "data_parallel_start_rank": _ONE_SERVER,
    "data_parallel_external_lb": _ONE_SERVER,
    "data_parallel_hybrid_lb": _ONE_SERVER,
    "host": "gpu_host_address",
    "port": "vllm_server_port",
    "uds": "vllm_server_port",
    "api_key": "vllm_server_api_key",
    "ssl_keyfile": _PLAIN,
    "ssl_certfile": _PLAIN,
    "enforce_eager": "vllm_server_ladder: [none]",
    "shutdown_timeout": "vllm_server_drain_deadline",
    "config": "vllm_server_args itself, for each line of that file",
}
"""What Lockstep sets, or vLLM's short name for what it does not, by one spelling; and what to use instead."""


def normalised(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments under one spelling: underscores, no leading dashes; ``compilation-config`` as a mapping, however it is given.

    Raises:
        ValueError: compilation-config is no mapping.
    """
    one: dict[str, Any] = {}
    for given, value in arguments.items():
        name, *inner = str(given).lstrip("-").split(".")
        name = name.replace("-", "_")
        name = "compilation_config" if name == "cc" else name
        if name == "compilation_config":
            value = _compilation(inner, value)
        elif inner:
            name = ".".join([name, *inner])
        one = merge(one, {name: value})
    return one


def _compilation(inner: list[str], value: Any) -> dict[str, Any] | None:
    """What ``compilation-config``, or ``compilation-config.a.b``, says: a mapping or JSON for one."""
    for key in reversed(inner):
        value = {key: value}
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"vllm_server_args sets compilation-config {value!r}: write a mapping, {{cudagraph_mode: …}}")
    return value


def cudagraph_mode(arguments: Mapping[str, Any]) -> str | None:
    """The CUDA graphs that normalised arguments ask for, in vLLM's word; None where they do not."""
    given = (arguments.get("compilation_config") or {}).get("cudagraph_mode")
    return None if given is None else str(given).upper()


def owned(arguments: Mapping[str, Any], where: str) -> Iterator[str]:
    """Why ``arguments`` must not hold some of what they hold, one line for each.

    Args:
        arguments: normalised.
        where: the variable that they come from.
    """
    for name in arguments:
        if name in OWNED:
            remedy = OWNED[name]
            following = remedy if remedy.startswith("leave it out") else f"use {remedy} instead"
            yield f"{where} sets {name.replace('_', '-')}; {following}"


def data_parallel_problems(arguments: Mapping[str, Any], size: int) -> Iterator[str]:
    """Why these arguments' data parallel engines would not come up; ``size`` is how many they ask for."""
    backend = arguments.get("data_parallel_backend")
    if size > 1 and backend != "ray":
        given = f"data-parallel-backend {backend}" if backend else "no data-parallel-backend"
        yield (
            f"vllm_server_args sets data-parallel-size {size} and {given}: vLLM's default listens on 127.0.0.1, which other "
            "hosts do not reach; add to vllm_server_args: {data-parallel-backend: ray}"
        )


def flags(arguments: dict[str, Any]) -> list[str]:
    """Arguments as data to a command line: true is a bare flag, false its ``--no-`` form, none is left out, a list
    gives several values, a mapping one JSON value."""
    line: list[str] = []
    for name, value in sorted(arguments.items()):
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            line.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, dict):
            line += [f"--{flag}", json.dumps(value, sort_keys=True)]
        elif isinstance(value, (list, tuple)):
            line += [f"--{flag}", *map(str, value)]
        else:
            line += [f"--{flag}", str(value)]
    return line


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` on top; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
