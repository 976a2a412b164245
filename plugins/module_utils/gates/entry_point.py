"""What the modules of the gates share: common arguments, the request that they stand for, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core import records
from ..core.codes import as_json
from ..core.stop import Stop
from . import runner
from .codes import Code
from .request import CAPTURED, Asked, Request
from .result import CannotRun, GateResult

RANK_GROUP_ARGUMENTS: dict[str, dict[str, Any]] = {
    "scope": {"type": "str", "choices": ["host", "replica"], "required": True},
    "deadline": {"type": "float", "default": 120},
    "run": {"type": "str", "default": "by-hand"},
    "backend": {"type": "str", "choices": ["auto", "nccl", "gloo"], "default": "auto"},
    "hosts": {"type": "list", "elements": "str"},
    "bisect": {"type": "bool", "default": True},
    "environment": {"type": "dict", "default": {}},
    "fail": {"type": "bool", "default": True},
}
"""Of the NCCL and the graph gate, as plugins/doc_fragments/gate.py documents them."""
_LINKS = ["auto", "nvlink", "pcie", "ib", "roce", "efa", "tcpx", "tcpxo", "ethernet", "cpu"]
NCCL_ARGUMENTS: dict[str, dict[str, Any]] = {
    "floor_gbps": {"type": "float"},
    "link": {"type": "str", "choices": _LINKS, "default": "auto"},
}
"""Of the NCCL gate besides, as plugins/doc_fragments/gate.py documents them."""
GRAPH_ARGUMENTS: dict[str, dict[str, Any]] = {
    "capture": {"type": "list", "elements": "str", "choices": list(CAPTURED), "default": ["plain"]},
    "slowest_replay_ratio": {"type": "float", "default": 0},
}
"""Of the graph gate besides, as plugins/doc_fragments/gate.py documents them."""


def nccl(given: Mapping[str, Any]) -> Asked:
    """What the NCCL gate's own arguments ask.

    Raises:
        CannotRun: the deadline is not positive.
    """
    return Asked("nccl", _positive(given["deadline"]), floor_gbps=given["floor_gbps"], link=given["link"])


def graph(given: Mapping[str, Any]) -> Asked:
    """What the graph gate's own arguments ask.

    Raises:
        CannotRun: the deadline is not positive, or nothing is to be captured.
    """
    if not given["capture"]:
        raise CannotRun("capture is empty: name in it what to capture")
    return Asked(
        "graph",
        _positive(given["deadline"]),
        slowest_replay_ratio=given["slowest_replay_ratio"],
        capture=tuple(given["capture"]),
    )


def _positive(deadline: float) -> float:
    if not deadline > 0:
        raise CannotRun(f"deadline is a positive number of seconds, not {deadline:g}")
    return float(deadline)


def request(params: Mapping[str, Any], *gates: Asked) -> Request:
    """The request that a module's common parameters stand for, of these gates."""
    return Request(
        params["scope"],
        gates,
        run=params["run"],
        backend=params["backend"],
        hosts=None if params["hosts"] is None else tuple(params["hosts"]),
        bisect=params["bisect"],
        environment={name: str(value) for name, value in params["environment"].items()},
    )


def finish(module: Any, gate: str, run: Callable[[], GateResult]) -> None:
    """Run the gate and end the module: failed when the gate did not pass, unless ``fail`` is false.

    A gate that could not even begin is a failed one, with the code ``could_not_run``.
    """
    (result,) = outcomes(gate, lambda: [run()])
    _end(module, [result], {"msg": message(result), "gate": as_json(result)})


def finish_all(module: Any, gates: Sequence[str], run: Callable[[], list[GateResult]]) -> None:
    """As ``finish``, for the gates of one rank group: ``results`` has an item for each that began."""
    results = outcomes(gates[0], run)
    begun = [result.gate for result in results]
    messages = [message(result) for result in results]
    messages += [f"{gate} gate: not run, since the ranks had ended" for gate in gates if gate not in begun]
    items = [{"gate": as_json(result), "failed": not result.passed, "msg": message(result)} for result in results]
    evidence = [path for result in results for path in result.evidence]
    _end(module, results, {"msg": "; ".join(messages), "results": items, "evidence": evidence})


def _end(module: Any, results: Sequence[GateResult], answer: Mapping[str, Any]) -> None:
    if module.params["fail"] and not all(result.passed for result in results):
        module.fail_json(**answer)
    for result in results:
        for warning in result.warnings:
            module.warn(warning)
    module.exit_json(changed=False, failed=False, **answer)


def outcomes(gate: str, run: Callable[[], list[GateResult]]) -> list[GateResult]:
    """What ``run`` gives, or the failure that stands for a gate that could not begin."""
    try:
        return run()
    except (CannotRun, records.RecordError, OSError, ValueError) as error:
        stop = Stop.of(error, "ansible-playbook playbooks/status.yml")
    return [GateResult(gate, "fail", 0.0, code=Code.COULD_NOT_RUN, cause=stop.cause, next=stop.next)]


def run_one(params: Mapping[str, Any], asked: Callable[[Mapping[str, Any]], Asked]) -> GateResult:
    """Run the one gate that a module's parameters ask for."""
    (result,) = runner.run(request(params, asked(params)))
    return result


def message(result: GateResult) -> str:
    """One line for the operator."""
    if result.passed:
        return f"{result.gate} gate passed in {result.seconds:g} s" + (
            f" on {result.backend}" if result.backend else ""
        )
    where = result.host or " and ".join(result.pair or ()) or "the replica"
    return f"{result.gate} gate: {result.verdict}, {result.code} on {where}: {result.cause}. Next: {result.next}"
