"""Run the NCCL gate, the graph gate or both with one rank group, on this host or across its replica, and give the verdicts.

The modules ``nccl_verify``, ``graph_capture_verify`` and ``rank_group_verify`` are its entry points. It runs under any Python
on the host; the ranks run under the serving environment's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from ..core import data_tables, deadline, evidence, host_record, records, typed, untrusted
from ..core.host_record import HostRecord
from ..driver import memory as gpu_memory
from ..ray import gcs
from ..ray.ports import ray_ports
from . import bandwidth, evidence_bundle, floors, nccl_tests, parts, transport
from . import graph as graph_gate
from . import nccl as nccl_gate
from .codes import Code
from .failure_analysis import next_command
from .ranks import events, launcher
from .ranks.job import Job, Part
from .ranks.launcher import Launch, Report
from .request import CAPTURED, Asked, RankGate, Request, part_name
from .result import CannotRun, GateResult

OUTER_MARGIN = 4.0
"""Seconds that a replica's gate may take beyond its deadline, to bring the evidence home."""


def run(request: Request) -> list[GateResult]:
    """Run the gates and give their verdicts in their order, at most all deadlines plus five seconds from now.

    A gate that did not begin, since one before it ended the ranks, has no verdict.

    Raises:
        CannotRun: this host is not ready for any gate (no host.json, no serving environment, unknown host).
    """
    began = time.monotonic()
    who = identity()
    if not os.access(request.python, os.X_OK):
        raise CannotRun(f"{who['host']}: no serving environment at {request.python}", "ansible-playbook site.yml")
    folders = {
        asked.gate: evidence_bundle.folder(request.run, f"{asked.gate}-{request.scope}") for asked in request.gates
    }
    results = complete(request, (_on_host if request.scope == "host" else _on_replica)(request, who, folders))
    others = sum(result.seconds for result in results[:-1])
    last = dataclasses.replace(results[-1], seconds=round(time.monotonic() - began - others, 3))
    return [*results[:-1], last]


def complete(request: Request, results: Sequence[GateResult]) -> list[GateResult]:
    """The verdicts, and a failure where a gate has none though none before it failed: silence proves nothing."""
    missing = [asked.gate for asked in request.gates[len(results) :]]
    if not missing or not all(result.passed for result in results):
        return list(results)
    cause = f"the {missing[0]} gate never began, though the ranks ended well"
    failed = GateResult(missing[0], "fail", 0.0, Code.COULD_NOT_RUN, cause=cause, next=next_command(None))
    return [*results, failed]


def evaluate(request: Request, reports: Sequence[Report], asked_parts: Sequence[Part]) -> list[GateResult]:
    """The verdicts over one rank group that was asked for these parts, of each gate that began."""
    return _verdicts(request, parts.split(reports, asked_parts), reports)


def _verdicts(request: Request, by_part: Mapping[str, Sequence[Report]], reports: Sequence[Report]) -> list[GateResult]:
    results = [found for asked in request.gates if (found := evaluate_gate(asked, by_part))]
    return [*results[:-1], _leaks(results[-1], reports)]


def evaluate_gate(asked: Asked, by_part: Mapping[str, Sequence[Report]]) -> GateResult | None:
    """The verdict of one gate over what its parts reported; None where it did not begin."""
    if asked.gate == "graph":
        begun = [one for one in CAPTURED if one in asked.capture and part_name(one) in by_part]
        ratio = asked.slowest_replay_ratio
        verdicts = {one: graph_gate.evaluate(by_part[part_name(one)], ratio) for one in begun}
        return graph_gate.together(verdicts, asked.capture)
    return _nccl(asked, by_part["nccl"]) if "nccl" in by_part else None


def _nccl(asked: Asked, reports: Sequence[Report]) -> GateResult:
    """Links without a known floor fail, saying so."""
    try:
        floor = floors.of(reports, data_tables.read("busbw_floors"), link=asked.link, given=asked.floor_gbps)
    except bandwidth.NoFloor as error:
        plain = nccl_gate.evaluate(reports, None)
        if plain.passed:
            plain = dataclasses.replace(
                plain, verdict="fail", code=Code.NO_FLOOR, cause=str(error), next=next_command(None)
            )
        return transport.evaluate(plain, reports)
    return transport.evaluate(nccl_gate.evaluate(reports, floor), reports)


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
        cause=f"gate leaked processes or GPU memory: {text}. Reboot {host}: the driver holds memory that outlives its process",
        next=f"ansible {host} -b -m ansible.builtin.reboot",
    )


def _on_host(request: Request, identity: HostRecord, folders: Mapping[RankGate, Path]) -> list[GateResult]:
    host = str(identity["host"])
    ranks = int(identity["gpus"])
    if ranks < 1:
        cause = f"{host} declares no GPUs, so there is nothing for this gate to run on"
        return [GateResult(request.first, "fail", 0.0, Code.NO_GPUS, host, cause=cause, next=next_command(host))]
    existing = gpu_memory.holders()
    if existing:
        return [existing_gpu_processes(request, host, [str(holder) for holder in existing])]
    wanted = request.backend != "gloo" and any(asked.gate == "nccl" for asked in request.gates)
    tool = nccl_tests.tool() if wanted else None
    if tool:
        request = dataclasses.replace(request, gates=tuple(nccl_tests.without_busbw(each) for each in request.gates))
    job = Job(
        request.parts(),
        host,
        first=0,
        here=ranks,
        world=ranks,
        master=("127.0.0.1", launcher.free_port("127.0.0.1")),
        backend=request.backend,
    )
    launch = Launch(
        request.evidence(folders),
        # On one host alone the network must not matter.
        {**launcher.ray_environment(), "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", **request.environment},
        rank_user(request.user),
        request.python,
        request.library,
    )
    report = launcher.run(job, launch, existing)
    by_part = parts.split([report], job.parts)
    on_gpu = any(event.backend == "nccl" for event in report.of(events.Started))
    for measured in by_part.get("nccl", []):
        if tool and on_gpu and measured.status == "done":
            left = next(part.seconds for part in job.parts if part.name == "nccl") - measured.seconds
            environment = {**launcher.ray_environment(), **request.environment}
            user = rank_user(request.user)
            by_part["nccl"] = [nccl_tests.measured(tool, measured, left, environment, folders["nccl"], user)]
    # On one host there is only one to blame.
    return [dataclasses.replace(result, host=host, pair=None) for result in _verdicts(request, by_part, [report])]


def _on_replica(request: Request, identity: HostRecord, folders: Mapping[RankGate, Path]) -> list[GateResult]:
    host = str(identity["host"])
    peers = dict(identity["peers"])
    unknown = sorted(set(request.hosts or []) - set(peers))
    if unknown:
        raise CannotRun(
            f"{', '.join(unknown)}: not in {identity['replica']}, whose hosts are {', '.join(sorted(peers))}"
        )
    chosen = {name: peers[name] for name in sorted(peers) if request.hosts is None or name in request.hosts}
    ask = {
        "request": dataclasses.asdict(request),
        "hosts": chosen,
        "head": identity["head"]["address"],
        "address": identity["address"],
        "port": ray_ports().gcs,
        "interface": host_record.ranks_interface(identity),
    }
    outcome = deadline.run(
        [request.python, "-m", "lockstep.gates.ranks.ray_launcher"],
        deadline=request.seconds() + OUTER_MARGIN,
        env=_ray_environment(request),
        cwd="/",
        input=json.dumps(ask),
        evidence=folders[request.first],
        user=rank_user(request.user),
    )
    answers = _answers(outcome.stdout)
    asked = [each.gate for each in request.gates]
    if not answers or any(
        not answer["result"].is_of(gate, chosen) for answer, gate in zip(answers, asked, strict=False)
    ):
        return [_no_answer(request, host, outcome)]
    return [_kept(answer, folders[gate], outcome.evidence) for answer, gate in zip(answers, asked, strict=False)]


def _kept(answer: Answer, folder: Path, evidence: Sequence[str]) -> GateResult:
    result = answer["result"]
    paths = _keep(folder, answer["files"]) if not result.passed else ()
    return dataclasses.replace(result, evidence=(*evidence, *paths))


def identity() -> HostRecord:
    """host.json.

    Raises:
        CannotRun: there is none.
    """
    found = host_record.stored()
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
    """What the launcher of the ranks answers for each gate: the result, and the text of evidence files by name."""

    result: GateResult
    files: dict[str, str]


def _answers(text: str) -> list[Answer] | None:
    """The JSON after the mark: Ray writes to standard output as well. It was written by the user of the ranks."""
    _, mark, rest = text.rpartition("LOCKSTEP-RESULT ")
    if not mark:
        return None
    try:
        return typed.parse(list[Answer], untrusted.parse_json(rest.split("\n")[0], finite=False))
    except ValueError:
        return None


def _no_answer(request: Request, host: str, outcome: deadline.Outcome) -> GateResult:
    lines = [line for line in outcome.stderr.strip().splitlines() if line.strip()]
    hung = outcome.status == "timeout"
    return GateResult(
        request.first,
        "timeout" if hung else "fail",
        outcome.seconds,
        code=Code.RAY_HANGS if hung else Code.RAY_FAILED,
        evidence=outcome.evidence,
        cause=f"Ray on {host} {'did not answer before the deadline' if hung else 'failed'}: "
        f"{lines[-1] if lines else 'no output'}",
        next=f"ansible {host} -b -m ansible.builtin.command -a 'journalctl -u lockstep-ray -n 100'",
    )


def existing_gpu_processes(request: Request, host: str, held: Sequence[str]) -> GateResult:
    """The refusal of a host where other processes hold GPU memory."""
    return GateResult(
        request.first,
        "fail",
        0.0,
        code=Code.MEMORY_HELD,
        host=host,
        measured={"gpu_processes": list(held)},
        cause=f"{host}: existing processes hold GPU memory: {'; '.join(held)}. End them, or drain what serves",
        next=f"ansible-playbook playbooks/status.yml --limit {host}",
    )


def _keep(folder: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    kept: list[str] = []
    for name, text in sorted(files.items()):
        path = folder / "/".join(evidence_bundle.plain(part) for part in name.split("/"))
        kept += evidence.output(path.parent, path.name, text)
    return tuple(kept)
