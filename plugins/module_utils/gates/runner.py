"""Run the NCCL or the graph gate, on this host alone or across its replica, and give the verdict.

The modules ``nccl_verify`` and ``graph_capture_verify`` are its entry points. It runs under any Python on the host; the
ranks run under the serving environment's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from ..core import data_tables, deadline, evidence, records, typed, untrusted
from ..driver import memory as gpu_memory
from ..ray import gcs
from ..ray.ports import ray_ports
from . import bandwidth, evidence_bundle, floors, nccl_tests, transport
from . import graph as graph_gate
from . import nccl as nccl_gate
from .codes import Code
from .failure_analysis import next_command
from .ranks import events, launcher
from .ranks.launcher import Job, Launch, Report
from .result import CannotRun, GateResult

WORKS = {"nccl": "collectives", "graph": "graphs"}
OUTER_MARGIN = 4.0
"""Seconds that a replica's gate may take beyond its deadline, to bring the evidence home."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a gate.

    Attributes:
        gate: ``nccl`` or ``graph``.
        scope: ``host`` runs on this host alone; ``replica`` across all its hosts, through Ray, from the head.
        deadline: seconds until a verdict; at most five more pass until it is given.
        params: for the work; None values take the work's defaults for the backend.
        run: names the evidence folder.
        backend: ``auto`` takes nccl where torch sees a GPU, else gloo.
        ranks_per_host: None takes the GPUs that host.json declares.
        hosts: names of a replica's hosts that take part; None takes all.
        bisect: after a failure that names no host, spend rounds of trials to find it.
        floor_gbps: NCCL gate: busbw floor that wins over the table.
        link: NCCL gate: ``auto`` or one of the table's links.
        nccl_tests: NCCL gate on one host: measure busbw with nccl-tests where it is installed.
        slowest_replay_ratio: graph gate: a replay may take so many times as long as eager; 0 demands no time.
        allow_gpu_processes: go on though other processes hold GPU memory.
        environment: variables for the ranks.
        user: who the ranks run as; None keeps the caller.
        python: interpreter with torch (and Ray).
        library: folder that holds the package ``lockstep``.
    """

    gate: Literal["nccl", "graph"]
    scope: Literal["host", "replica"]
    deadline: float
    params: Mapping[str, Any]
    run: str = "by-hand"
    backend: str = "auto"
    ranks_per_host: int | None = None
    hosts: Sequence[str] | None = None
    bisect: bool = True
    floor_gbps: float | None = None
    link: str = "auto"
    nccl_tests: bool = False
    slowest_replay_ratio: float = 0.0
    allow_gpu_processes: bool = False
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    user: str | None = "lockstep"
    python: str = str(records.RUNTIME / "bin" / "python")
    library: str = str(records.LIB)


def run(request: Request) -> GateResult:
    """Run the gate and give its verdict, at most ``deadline`` plus five seconds from now.

    Raises:
        CannotRun: this host is not ready for any gate (no host.json, no serving environment, unknown host).
    """
    began = time.monotonic()
    who = identity()
    if not os.access(request.python, os.X_OK):
        raise CannotRun(f"{who['host']}: no serving environment at {request.python}", "ansible-playbook site.yml")
    folder = evidence_bundle.folder(request.run, f"{request.gate}-{request.scope}")
    result = (_on_host if request.scope == "host" else _on_replica)(request, who, folder)
    return dataclasses.replace(result, seconds=round(time.monotonic() - began, 3))


def evaluate(request: Request, reports: Sequence[Report]) -> GateResult:
    """Verdict over one rank group, by the request's gate. Links of which no floor can be told fail, saying so."""
    if request.gate == "graph":
        return _leaks(graph_gate.evaluate(reports, request.slowest_replay_ratio), reports)
    try:
        floor = floor_for(request, reports)
    except bandwidth.NoFloor as error:
        plain = nccl_gate.evaluate(reports, None)
        if plain.passed:
            plain = dataclasses.replace(
                plain, verdict="fail", code=Code.NO_FLOOR, cause=str(error), next="Set floor_gbps"
            )
        return transport.judge(plain, reports)
    return _leaks(transport.judge(nccl_gate.evaluate(reports, floor), reports), reports)


def floor_for(request: Request, reports: Sequence[Report]) -> bandwidth.Floor | None:
    """The floor for what the ranks report that they ran on; None where no rank reported anything.

    Raises:
        bandwidth.NoFloor: as ``floors.of``.
    """
    return floors.of(reports, data_tables.read("busbw_floors"), link=request.link, given=request.floor_gbps)


def _leaks(result: GateResult, reports: Sequence[Report]) -> GateResult:
    """A gate whose processes or GPU memory outlive it has not passed."""
    leaked = [(report.host, what) for report in reports for what in (*report.leaked_memory, *report.leaked_processes)]
    if not leaked:
        return result
    host = leaked[0][0]
    text = "; ".join(f"{name}: {what}" for name, what in leaked)
    if not result.passed:
        return dataclasses.replace(result, warnings=(*result.warnings, f"gate leaked processes or GPU memory: {text}"))
    return dataclasses.replace(
        result,
        verdict="fail",
        code=Code.MEMORY_HELD,
        host=host,
        cause=f"gate leaked processes or GPU memory: {text}",
        next=f"Reboot {host}: memory that outlives its process is held by the driver",
    )


def _on_host(request: Request, identity: Mapping[str, Any], folder: Path) -> GateResult:
    host = str(identity["host"])
    ranks = request.ranks_per_host or int(identity["gpus"])
    if ranks < 1:
        cause = f"{host} declares no GPUs, so there is nothing for this gate to run on"
        return GateResult(request.gate, "fail", 0.0, code=Code.NO_GPUS, host=host, cause=cause, next=next_command(host))
    existing = gpu_memory.holders()
    if existing and not request.allow_gpu_processes:
        return existing_gpu_processes(request, host, [str(holder) for holder in existing])
    tool = _nccl_tests_tool(request)
    job = Job(
        WORKS[request.gate],
        {**request.params, "busbw_bytes": 0} if tool else request.params,
        host,
        first=0,
        here=ranks,
        world=ranks,
        master=("127.0.0.1", launcher.free_port("127.0.0.1")),
        backend=request.backend,
    )
    launch = Launch(
        request.deadline,
        folder,
        {**launcher.ray_environment(), **_local_sockets(), **request.environment},
        rank_user(request.user),
        request.python,
        request.library,
    )
    report = launcher.run(job, launch, existing)
    if tool and report.status == "done" and any(event.backend == "nccl" for event in report.of(events.Started)):
        environment = {**launcher.ray_environment(), **request.environment}
        report = nccl_tests.measured(
            tool, report, request.deadline - report.seconds, environment, folder, rank_user(request.user)
        )
    # On one host there is only one to blame.
    return dataclasses.replace(evaluate(request, [report]), host=host, pair=None)


def _nccl_tests_tool(request: Request) -> str | None:
    desired = request.gate == "nccl" and request.nccl_tests and request.backend != "gloo"
    return nccl_tests.tool() if desired else None


def _on_replica(request: Request, identity: Mapping[str, Any], folder: Path) -> GateResult:
    host = str(identity["host"])
    peers = dict(identity["peers"])
    unknown = sorted(set(request.hosts or []) - set(peers))
    if unknown:
        raise CannotRun(
            f"{', '.join(unknown)}: not in {identity['replica']}, whose hosts are {', '.join(sorted(peers))}",
            "Name hosts of the replica in hosts",
        )
    chosen = {name: peers[name] for name in sorted(peers) if request.hosts is None or name in request.hosts}
    ask = {
        "request": dataclasses.asdict(request),
        "hosts": chosen,
        "head": identity["head"]["address"],
        "address": identity["address"],
        "port": ray_ports().gcs,
        "interface": identity["interface"],
    }
    outcome = deadline.run(
        [request.python, "-m", "lockstep.gates.ranks.ray_launcher"],
        deadline=request.deadline + OUTER_MARGIN,
        env=_ray_environment(request),
        cwd="/",
        input=json.dumps(ask),
        evidence=folder,
        user=rank_user(request.user),
    )
    answer = _answer(outcome.stdout)
    if answer is None or not answer["result"].is_of(request.gate, chosen):
        return _no_answer(request, host, outcome)
    result = answer["result"]
    paths = _keep(folder, answer["files"]) if not result.passed else ()
    return dataclasses.replace(result, evidence=(*outcome.evidence, *paths))


def request_of(record: Mapping[str, Any]) -> Request:
    """A request from ``dataclasses.asdict``."""
    return Request(**record)


def identity() -> dict[str, Any]:
    """host.json.

    Raises:
        CannotRun: there is none.
    """
    found = records.read(records.HOST)
    if found is None:
        raise CannotRun(f"{records.HOST} does not exist: this host was never prepared", "ansible-playbook site.yml")
    return found


def rank_user(name: str | None) -> str | None:
    """Only root can become somebody else, and only somebody who exists."""
    if name is None or os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(name)
    except KeyError:
        return None
    return name


def _local_sockets() -> dict[str, str]:
    """On one host alone the network must not matter."""
    return {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


def _ray_environment(request: Request) -> dict[str, str]:
    token = gcs.token()
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": request.library,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        **secret,
    }


class Answer(TypedDict):
    """What the launcher of the ranks answers: the result, and the text of evidence files by name."""

    result: GateResult
    files: dict[str, str]


def _answer(text: str) -> Answer | None:
    """The JSON after the mark: Ray writes to standard output as well. It was written by the user of the ranks."""
    _, mark, rest = text.rpartition("LOCKSTEP-RESULT ")
    if not mark:
        return None
    try:
        return typed.parse(Answer, untrusted.parse_json(rest.split("\n")[0], finite=False))
    except ValueError:
        return None


def _no_answer(request: Request, host: str, outcome: deadline.Outcome) -> GateResult:
    lines = [line for line in outcome.stderr.strip().splitlines() if line.strip()]
    hung = outcome.status == "timeout"
    return GateResult(
        request.gate,
        "timeout" if hung else "fail",
        outcome.seconds,
        code=Code.RAY_HANGS if hung else Code.RAY_FAILED,
        evidence=outcome.evidence,
        cause=f"Ray on {host} {'did not answer before the deadline' if hung else 'failed'}: "
        f"{lines[-1] if lines else 'no output'}",
        next=f"On {host}: journalctl -u lockstep-ray -n 100",
    )


def existing_gpu_processes(request: Request, host: str, held: Sequence[str]) -> GateResult:
    """The refusal of a host where other processes hold GPU memory."""
    return GateResult(
        request.gate,
        "fail",
        0.0,
        code=Code.MEMORY_HELD,
        host=host,
        measured={"gpu_processes": list(held)},
        cause=f"{host}: existing processes hold GPU memory: {'; '.join(held)}",
        next=f"End them, or drain what serves: ansible-playbook playbooks/status.yml --limit {host}",
    )


def _keep(folder: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    kept: list[str] = []
    for name, text in sorted(files.items()):
        path = folder / "/".join(evidence_bundle.plain(part) for part in name.split("/"))
        kept += evidence.output(path.parent, path.name, text)
    return tuple(kept)
