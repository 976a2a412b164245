"""What the engine supervisor is to run: /etc/lockstep/engine.json, read and checked, and the command it becomes."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from ..core import records
from ..ray.ports import EnginePorts
from .ladder import RUNGS, Rung, rung_arguments
from .layouts import Layout, MoveUp, Policy, Window
from .restarts import Restarts

_OWNED_ARGUMENTS: dict[str, str] = {
    "model": "vllm_server_model",
    "served_model_name": "vllm_server_served_model_name",
    "tensor_parallel_size": "vllm_server_tensor_parallel_size",
    "pipeline_parallel_size": "vllm_server_pipeline_parallel_size",
    "distributed_executor_backend": "nothing: Lockstep runs vLLM on Ray",
    "host": "gpu_host_address",
    "port": "vllm_server_port",
    "api_key": "vllm_server_api_key",
    "enforce_eager": "vllm_server_ladder: [none]",
    "shutdown_timeout": "vllm_server_drain_deadline",
}

_DEFAULTS: dict[str, Any] = {
    # The supervisor asks both every second: two lines of log each time would drown the engine's own.
    "disable_access_log_for_endpoints": "/health,/metrics",
}


class ConfigError(Exception):
    """The configuration cannot be run; the message names the variable and what to write instead."""


@dataclasses.dataclass(frozen=True)
class Proof:
    """The completion that shows that an engine works.

    Attributes:
        prompt: of the completion.
        answer: text that the completion must contain; None accepts any token.
        prompts: more prompts, on which each rung must agree with the eager engine.
        max_tokens: length of each completion, in tokens.
        deadline: seconds for the first completion after a start, which may compile.
    """

    prompt: str
    answer: str | None = None
    prompts: tuple[str, ...] = ()
    max_tokens: int = 16
    deadline: float = 300.0


@dataclasses.dataclass(frozen=True)
class Heartbeat:
    """How often tokens must be seen, in seconds.

    Attributes:
        period: an idle engine is asked for a completion this long after the last token.
        stale: this long without a token, and the replica is not ready.
        wedged: this long without a token, and the engine is taken for dead and restarted.
    """

    period: float = 4.0
    stale: float = 10.0
    wedged: float = 20.0


@dataclasses.dataclass(frozen=True)
class Deadlines:
    """Seconds: for resources to appear, for vLLM to start, for it to start on a rung above the lowest (whose start it must
    not exceed by much, unless it hangs), for running requests to end before a stop."""

    wait: float = 1800.0
    start: float = 1800.0
    rung: float = 900.0
    drain: float = 60.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything in engine.json, checked."""

    model: str
    served_model_name: str
    layouts: tuple[Layout, ...]
    proof: Proof
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    ladder: tuple[Rung, ...] = RUNGS
    ports: EnginePorts = dataclasses.field(default_factory=EnginePorts)
    policy: Policy = dataclasses.field(default_factory=Policy)
    heartbeat: Heartbeat = dataclasses.field(default_factory=Heartbeat)
    restarts: Restarts = dataclasses.field(default_factory=Restarts)
    deadlines: Deadlines = dataclasses.field(default_factory=Deadlines)


def parse(record: dict[str, Any]) -> Config:
    """The configuration in an engine.json.

    Raises:
        ConfigError: something is missing, unknown or contradicts itself.
    """
    try:
        config = _build(record)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"engine.json: {type(error).__name__}: {error}") from error
    for where, arguments in (("", config.arguments), *((f" of layout {x.name}", x.arguments) for x in config.layouts)):
        for name in arguments:
            if name in _OWNED_ARGUMENTS:
                raise ConfigError(
                    f"vllm_server_args{where} sets {name.replace('_', '-')}; use {_OWNED_ARGUMENTS[name]} instead"
                )
    return config


def command(vllm: str, config: Config, layout: Layout, rung: Rung, address: str) -> list[str]:
    """The command line of one engine. It never holds a secret: the API key travels in the environment.

    Args:
        vllm: path of the ``vllm`` program.
        address: the address it listens at.
    """
    arguments = merge(_DEFAULTS, merge(config.arguments, layout.arguments))
    arguments = merge(arguments, rung_arguments(rung))
    arguments |= {
        "served_model_name": config.served_model_name,
        "host": address,
        "port": config.ports.api,
        "distributed_executor_backend": "ray",
        "tensor_parallel_size": layout.tensor_parallel_size,
        "pipeline_parallel_size": layout.pipeline_parallel_size,
        "shutdown_timeout": int(config.deadlines.drain),
    }
    return [vllm, "serve", config.model, *flags(arguments)]


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


def _build(record: dict[str, Any]) -> Config:
    proof = dict(record["proof"])
    proof["prompts"] = tuple(proof.get("prompts", ()))
    layouts = tuple(_layout(entry) for entry in record["layouts"])
    ladder = tuple(record.get("ladder", RUNGS))
    if not layouts:
        raise ConfigError("vllm_server_layouts: at least one layout is needed")
    if len({layout.name for layout in layouts}) != len(layouts):
        raise ConfigError("vllm_server_layouts: two layouts have one name")
    if not ladder or list(ladder) != [rung for rung in RUNGS if rung in ladder]:
        raise ConfigError(f"vllm_server_ladder is {list(ladder)}: give some of {', '.join(RUNGS)}, in this order")
    heartbeat = Heartbeat(**_numbers(record.get("heartbeat", {})))
    if not 0 < heartbeat.period < heartbeat.stale < heartbeat.wedged:
        raise ConfigError("vllm_server_heartbeat: expected 0 < period < stale < wedged")
    restarts = _numbers(record.get("restarts", {}))
    return Config(
        model=str(record["model"]),
        served_model_name=str(record["served_model_name"]),
        layouts=layouts,
        proof=Proof(**proof),
        arguments=normalised(record.get("args", {})),
        environment={name: str(value) for name, value in record.get("environment", {}).items()},
        ladder=ladder,
        ports=EnginePorts.parse(record),
        policy=_policy(record.get("policy", {})),
        heartbeat=heartbeat,
        restarts=Restarts(**(restarts | {"limit": int(restarts["limit"])} if "limit" in restarts else restarts)),
        deadlines=Deadlines(**_numbers(record.get("deadlines", {}))),
    )


def normalised(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments under one spelling: underscores, no leading dashes."""
    return {str(name).lstrip("-").replace("-", "_"): value for name, value in arguments.items()}


def _layout(entry: dict[str, Any]) -> Layout:
    tensor, pipeline = int(entry["tensor_parallel_size"]), int(entry.get("pipeline_parallel_size", 1))
    if tensor < 1 or pipeline < 1:
        raise ConfigError(f"a layout has TP{tensor}×PP{pipeline}: both sizes are at least 1")
    name = str(entry.get("name") or f"tp{tensor}pp{pipeline}")
    return Layout(name, tensor, pipeline, normalised(entry.get("args", {})))


def _policy(record: dict[str, Any]) -> Policy:
    move_up: MoveUp = record.get("move_up", "at_once")
    if move_up not in ("at_once", "window", "command"):
        raise ConfigError(f"vllm_server_layout_move_up is {move_up!r}: expected at_once, window or command")
    window = record.get("window")
    if move_up == "window" and not window:
        raise ConfigError("vllm_server_layout_window is needed with vllm_server_layout_move_up: window")
    return Policy(
        patience=float(record.get("patience", 120.0)),
        stable_for=float(record.get("stable_for", 60.0)),
        move_up=move_up,
        window=Window.parse(str(window)) if window else None,
    )


def _numbers(record: dict[str, Any]) -> dict[str, Any]:
    return {name: float(value) for name, value in record.items()}


def main(arguments: list[str]) -> int:
    """Check a file before it becomes /etc/lockstep/engine.json; 0 when it can be run."""
    try:
        parse(records.read(Path(arguments[0])) or {})
    except (ConfigError, records.RecordError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
