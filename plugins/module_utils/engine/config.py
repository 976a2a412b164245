"""What the engine supervisor is to run: /etc/lockstep/engine.json, read and checked, and the command it becomes."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from ..core import records
from ..core.window import Window
from ..ray.ports import EnginePorts
from . import arguments as vllm_arguments
from .arguments import merge, normalised
from .ladder import RUNGS, Rung, mode_problem, rung_arguments, rungs
from .layouts import Layout, MoveUp, Policy
from .restarts import Restarts

_DEFAULTS: dict[str, Any] = {
    # The supervisor asks both every second: two lines of log each time would drown the engine's own.
    "disable_access_log_for_endpoints": "/health,/metrics",
}

Value = TypeVar("Value")


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
    cache: str | None = None
    """The folder that models are fetched to (``vllm_server_cache``); None for one below the state of user lockstep."""

    def rungs(self, layout: Layout) -> tuple[Rung, ...]:
        """The rungs that an engine of this layout may run on, lowest first."""
        return rungs(self.ladder, self._mode(layout))

    def arguments_on(self, layout: Layout, rung: Rung) -> dict[str, Any]:
        """vLLM's arguments on a rung, as far as the operator and the rung decide them."""
        given = merge(self.arguments, layout.arguments)
        return merge(given, rung_arguments(rung, self._mode(layout)))

    def serving_deadline(self) -> float:
        """Seconds until an engine must serve at the worst: its resources, every rung, and the lowest once more where none
        above it holds. The role's default of ``vllm_server_serving_deadline`` is the same."""
        return self.deadlines.wait + (self.deadlines.start + self.proof.deadline) * (len(self.ladder) + 1)

    def _mode(self, layout: Layout) -> str | None:
        """The cudagraph mode that the operator asks for, which the top rung runs with; None where he leaves it to us."""
        return vllm_arguments.cudagraph_mode(merge(self.arguments, layout.arguments))


def parse(record: dict[str, Any]) -> Config:
    """The configuration in an engine.json.

    Raises:
        ConfigError: something is missing, unknown or contradicts itself.
    """
    config, problems = examine(record)
    if config is None or problems:
        raise ConfigError("\n".join(problems))
    return config


def examine(record: dict[str, Any]) -> tuple[Config | None, tuple[str, ...]]:
    """The configuration in an engine.json, and all that is wrong with it.

    The configuration is None where it cannot be read; where there are problems it is only good for finding more of them.
    """
    problems: list[str] = []
    try:
        config = _build(record, problems)
    except ConfigError as error:
        return None, (*problems, str(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return None, (*problems, f"engine.json: {type(error).__name__}: {error}")
    for layout in config.layouts:
        both = merge(config.arguments, layout.arguments)
        problems += vllm_arguments.data_parallel_problems(both, layout.data_parallel_size)
        mode = vllm_arguments.cudagraph_mode(both)
        if mode is not None and (problem := mode_problem(config.ladder, mode)):
            problems.append(f"vllm_server_args {problem}")
    problems += vllm_arguments.owned(config.arguments, "vllm_server_args")
    for layout in config.layouts:
        problems += vllm_arguments.owned(layout.arguments, f"vllm_server_args of layout {layout.name}")
    return config, tuple(dict.fromkeys(problems))


def command(vllm: str, config: Config, layout: Layout, rung: Rung, address: str) -> list[str]:
    """The command line of one engine. It never holds a secret: the API key travels in the environment.

    Args:
        vllm: path of the ``vllm`` program.
        address: the address it listens at.
    """
    arguments = merge(_DEFAULTS, config.arguments_on(layout, rung))
    arguments |= {
        "served_model_name": config.served_model_name,
        "host": address,
        "port": config.ports.api,
        "distributed_executor_backend": "ray",
        "tensor_parallel_size": layout.tensor_parallel_size,
        "pipeline_parallel_size": layout.pipeline_parallel_size,
        "shutdown_timeout": int(config.deadlines.drain),
    }
    return [vllm, "serve", config.model, *vllm_arguments.flags(arguments)]


def _build(record: dict[str, Any], problems: list[str]) -> Config:
    """Raises what reading it raises where there is nothing to go on with; other problems are added to ``problems``."""
    proof = dict(record["proof"])
    proof["prompts"] = tuple(proof.get("prompts", ()))
    arguments = normalised(record.get("args") or {})
    layouts = tuple(_layout(entry, arguments) for entry in record["layouts"])
    if not layouts:
        raise ConfigError("vllm_server_layouts: at least one layout is needed")
    if len({layout.name for layout in layouts}) != len(layouts):
        problems.append("vllm_server_layouts: two layouts have one name")
    return Config(
        model=str(record["model"]),
        served_model_name=str(record["served_model_name"]),
        layouts=layouts,
        proof=Proof(**proof),
        arguments=arguments,
        environment={name: str(value) for name, value in (record.get("environment") or {}).items()},
        ladder=_or(problems, RUNGS, lambda: _ladder(record.get("ladder", RUNGS))),
        ports=EnginePorts.parse(record),
        policy=_or(problems, Policy(), lambda: _policy(record.get("policy", {}))),
        heartbeat=_or(problems, Heartbeat(), lambda: _heartbeat(record.get("heartbeat", {}))),
        restarts=_or(problems, Restarts(), lambda: _restarts(record.get("restarts", {}))),
        deadlines=_or(problems, Deadlines(), lambda: Deadlines(**_numbers(record.get("deadlines", {})))),
        cache=_or(problems, None, lambda: _cache(record.get("cache"))),
    )


def _or(problems: list[str], default: Value, read: Callable[[], Value]) -> Value:
    """What ``read`` gives; where it raises, ``default``, and why in ``problems``."""
    try:
        return read()
    except ConfigError as error:
        problems.append(str(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problems.append(f"engine.json: {type(error).__name__}: {error}")
    return default


def _cache(folder: Any) -> str | None:
    if not folder:
        return None
    if not str(folder).startswith("/"):
        raise ConfigError(f"vllm_server_cache {folder} is no absolute path")
    return str(folder).rstrip("/") or "/"


def _layout(entry: dict[str, Any], of_replica: dict[str, Any]) -> Layout:
    tensor, pipeline = int(entry["tensor_parallel_size"]), int(entry.get("pipeline_parallel_size") or 1)
    if tensor < 1 or pipeline < 1:
        raise ConfigError(f"a layout has TP{tensor}×PP{pipeline}: both sizes are at least 1")
    arguments = normalised(entry.get("args") or {})
    given = merge(of_replica, arguments).get("data_parallel_size")
    data = 1 if given is None else int(given)
    if data < 1:
        raise ConfigError(f"vllm_server_args sets data-parallel-size {data}: it is at least 1")
    sizes = f"tp{tensor}pp{pipeline}{f'dp{data}' if data > 1 else ''}"
    return Layout(str(entry.get("name") or sizes), tensor, pipeline, arguments, data)


def _ladder(given: Iterable[str]) -> tuple[Rung, ...]:
    wanted = list(given)
    ladder = tuple(rung for rung in RUNGS if rung in wanted)
    if not wanted or wanted != list(ladder):
        raise ConfigError(f"vllm_server_ladder is {wanted}: give some of {', '.join(RUNGS)}, in this order")
    return ladder


def _heartbeat(record: dict[str, Any]) -> Heartbeat:
    heartbeat = Heartbeat(**_numbers(record))
    if not 0 < heartbeat.period < heartbeat.stale < heartbeat.wedged:
        raise ConfigError("vllm_server_heartbeat: expected 0 < period < stale < wedged")
    return heartbeat


def _restarts(record: dict[str, Any]) -> Restarts:
    numbers = _numbers(record)
    return Restarts(**(numbers | {"limit": int(numbers["limit"])} if "limit" in numbers else numbers))


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
