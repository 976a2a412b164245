"""What the doors of the NCCL and the graph gate share: their common arguments, and the message of a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..core import records
from . import runner
from .result import GateResult

ERRORS = (runner.CannotRun, records.RecordError, OSError, ValueError)

COMMON: dict[str, dict[str, Any]] = {
    "scope": {"type": "str", "choices": ["host", "replica"], "required": True},
    "deadline": {"type": "float", "default": 120},
    "run": {"type": "str", "default": "by-hand"},
    "backend": {"type": "str", "choices": ["auto", "nccl", "gloo"], "default": "auto"},
    "hosts": {"type": "list", "elements": "str"},
    "ranks_per_host": {"type": "int"},
    "localise": {"type": "bool", "default": True},
    "allow_gpu_processes": {"type": "bool", "default": False},
    "environment": {"type": "dict", "default": {}},
    "fail": {"type": "bool", "default": True},
}


def request(
    gate: Literal["nccl", "graph"], wish: Mapping[str, Any], params: Mapping[str, Any], **own: Any
) -> runner.Request:
    """The request that a module's parameters stand for.

    Raises:
        ValueError: the deadline is not positive.
    """
    if not wish["deadline"] > 0:
        raise ValueError(f"deadline is a positive number of seconds, not {wish['deadline']:g}")
    return runner.Request(
        gate,
        wish["scope"],
        float(wish["deadline"]),
        params,
        run=wish["run"],
        backend=wish["backend"],
        ranks_per_host=wish["ranks_per_host"],
        hosts=wish["hosts"],
        localise=wish["localise"],
        allow_gpu_processes=wish["allow_gpu_processes"],
        environment={name: str(value) for name, value in wish["environment"].items()},
        **own,
    )


def finish(module: Any, gate: str, run: Callable[[], GateResult]) -> None:
    """Run the gate and end the module: failed when the gate did not pass, unless ``fail`` is false.

    A gate that could not even begin is a failed one, with the code ``could_not_run``.
    """
    try:
        result = run()
    except ERRORS as error:
        text, _, following = str(error).partition(" Next: ")
        result = GateResult(gate, "fail", 0.0, code="could_not_run", cause=text, next=following or "See the cause")
    answer = {"msg": message(result), "gate": result.as_dict()}
    if module.params["fail"] and not result.passed:
        module.fail_json(**answer)
    for warning in result.warnings:
        module.warn(warning)
    module.exit_json(changed=False, **answer)


def message(result: GateResult) -> str:
    """One line for the operator."""
    if result.passed:
        return f"{result.gate} gate passed in {result.seconds:g} s" + (
            f" on {result.backend}" if result.backend else ""
        )
    where = result.host or " and ".join(result.pair or ()) or "the replica"
    return f"{result.gate} gate: {result.verdict}, {result.code} on {where}: {result.cause}. Next: {result.next}"
