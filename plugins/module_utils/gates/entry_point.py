"""What the modules of the gates share: common arguments, the request that they stand for, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ..core import records
from ..core.codes import as_json
from ..core.stop import Stop
from . import runner
from .codes import Code
from .result import CannotRun, GateResult

RANK_GROUP_ARGUMENTS: dict[str, dict[str, Any]] = {
    "scope": {"type": "str", "choices": ["host", "replica"], "required": True},
    "deadline": {"type": "float", "default": 120},
    "run": {"type": "str", "default": "by-hand"},
    "backend": {"type": "str", "choices": ["auto", "nccl", "gloo"], "default": "auto"},
    "hosts": {"type": "list", "elements": "str"},
    "ranks_per_host": {"type": "int"},
    "bisect": {"type": "bool", "default": True},
    "allow_gpu_processes": {"type": "bool", "default": False},
    "environment": {"type": "dict", "default": {}},
    "fail": {"type": "bool", "default": True},
}
"""Of the NCCL and the graph gate, as plugins/doc_fragments/gate.py documents them."""


def request(
    gate: Literal["nccl", "graph"], params: Mapping[str, Any], work: Mapping[str, Any], **own: Any
) -> runner.Request:
    """The request that a module's parameters stand for.

    Args:
        gate: which gate.
        params: of the module.
        work: parameters of the work that the ranks do.
        own: fields of the request that only this gate has.

    Raises:
        CannotRun: the deadline is not positive.
    """
    if not params["deadline"] > 0:
        raise CannotRun(
            f"deadline is a positive number of seconds, not {params['deadline']:g}",
            "Set deadline to the seconds to wait",
        )
    return runner.Request(
        gate,
        params["scope"],
        float(params["deadline"]),
        work,
        run=params["run"],
        backend=params["backend"],
        ranks_per_host=params["ranks_per_host"],
        hosts=params["hosts"],
        bisect=params["bisect"],
        allow_gpu_processes=params["allow_gpu_processes"],
        environment={name: str(value) for name, value in params["environment"].items()},
        **own,
    )


def finish(module: Any, gate: str, run: Callable[[], GateResult]) -> None:
    """Run the gate and end the module: failed when the gate did not pass, unless ``fail`` is false.

    A gate that could not even begin is a failed one, with the code ``could_not_run``.
    """
    result = outcome(gate, run)
    answer = {"msg": message(result), "gate": as_json(result)}
    if module.params["fail"] and not result.passed:
        module.fail_json(**answer)
    for warning in result.warnings:
        module.warn(warning)
    module.exit_json(changed=False, **answer)


def outcome(gate: str, run: Callable[[], GateResult]) -> GateResult:
    """What ``run`` gives, or the failure that stands for a gate that could not begin."""
    try:
        return run()
    except (CannotRun, records.RecordError, OSError, ValueError) as error:
        stop = Stop.of(error, "ansible-playbook playbooks/status.yml")
    return GateResult(gate, "fail", 0.0, code=Code.COULD_NOT_RUN, cause=stop.cause, next=stop.next)


def message(result: GateResult) -> str:
    """One line for the operator."""
    if result.passed:
        return f"{result.gate} gate passed in {result.seconds:g} s" + (
            f" on {result.backend}" if result.backend else ""
        )
    where = result.host or " and ".join(result.pair or ()) or "the replica"
    return f"{result.gate} gate: {result.verdict}, {result.code} on {where}: {result.cause}. Next: {result.next}"
