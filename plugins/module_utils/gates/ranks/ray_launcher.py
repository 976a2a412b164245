"""Gates across the hosts of a replica, through Ray: one rank group in a placement group, then trials that bisect a failure.

``python -m lockstep.gates.ranks.ray_launcher`` runs on the head under the serving environment's Python, reads what is asked
from standard input and writes one line ``LOCKSTEP-RESULT {…}``. On every host a RankActor, which holds that host's GPUs,
starts the ranks under the guard of ``deadline``. When this process ends, however it ends, Ray ends the actors, and their
guards the ranks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...core import deadline, untrusted
from ...core.codes import as_json
from ...driver import memory as gpu_memory
from ...ray import gcs
from .. import bisect, runner
from .. import nccl as nccl_gate
from ..codes import Code
from ..parts import split
from ..request import Asked, Request, request_of
from ..result import GateResult
from . import launcher
from .job import Job, Part
from .launcher import Launch, Report

PATIENCE = 10.0
"""Seconds for which Ray is asked again, where a rank group cannot be placed."""
PLACING = 30.0
"""Seconds that placing the actors may take."""
ANSWER = 10.0
"""Seconds within which an actor answers a small question."""
GRACE = 1.0
"""Seconds between the first rank's failure and the end of the others, so that they can report what they saw."""
SHORTEST_ROUND = 5.0
FIRST_TRIAL = 0.55
"""Share of a gate's time for the trial of all hosts together, where others may follow."""
INCONCLUSIVE = (Code.OUT_OF_TIME, Code.HOST_LOST, Code.NO_FLOOR)
"""Verdicts that prove nothing about the hosts of a trial."""
RAY_CODES: dict[gcs.Head, Code] = {"down": Code.RAY_DOWN, "refused": Code.RAY_REFUSED}
FILE_LIMIT = 128 << 10
FILES_LIMIT = 40


class RankActor:
    """The actor on one host: it holds the host's GPUs, starts the ranks and brings back what became of them."""

    def __init__(self) -> None:
        self._running: launcher.RunningRanks | None = None
        self._lock = threading.Lock()

    def existing_gpu_processes(self) -> list[str]:
        """Who holds GPU memory on this host already."""
        return [str(holder) for holder in gpu_memory.holders()]

    def free_port(self, address: str) -> int:
        """A port for rank 0 on this host."""
        return launcher.free_port(address)

    def run(self, job: Job, launch: Launch) -> tuple[Report, dict[str, str]]:
        """Run this host's ranks. Returns their report, and evidence files by name."""
        folder = Path(tempfile.mkdtemp(prefix="lockstep-evidence-"))
        evidence = {part.name: folder for part in job.parts}  # only one of them can fail
        try:
            with self._lock:
                running = launcher.begin(job, dataclasses.replace(launch, evidence=evidence))
                self._running = running
            return running.wait(), _contents(folder)
        finally:
            self._running = None
            shutil.rmtree(folder, ignore_errors=True)

    def end(self) -> None:
        """End the ranks that run now."""
        running = self._running
        if running is not None:
            running.end()


def _contents(folder: Path) -> dict[str, str]:
    """The last part of every file in the folder, by name. What else lies there, a model's code may have put: it is skipped."""
    found = {}
    with untrusted.open_folder(folder) as handle:
        for file in untrusted.files_below(handle, FILES_LIMIT):
            with contextlib.suppress(OSError):
                found[file.parts[-1]] = untrusted.end_below(handle, file.parts, FILE_LIMIT).decode("utf-8", "replace")
    return found


def _reason(why: object) -> str:
    """One line: the last of a task's traceback, the first of anything else that Ray says."""
    import ray

    lines = [line.strip() for line in str(why).splitlines() if line.strip()]
    return lines[-1 if isinstance(why, ray.exceptions.RayTaskError) else 0][:300] if lines else ""


@dataclasses.dataclass
class RankGroup:
    """The replica's hosts with their actors, on which trials run."""

    request: Request
    addresses: Mapping[str, str]
    ranks: Mapping[str, int]
    interface: str
    actors: Mapping[str, Any]
    end: float = 0.0
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    trials: int = 0

    def remaining(self) -> float:
        """Seconds until the deadline of the gate at hand."""
        return self.end - time.monotonic()

    def trial(self, hosts: Sequence[str], parts: Sequence[Part]) -> list[Report]:
        """Run the ranks of some of the hosts together. Never longer than the parts and what the guards need at their end."""
        import ray

        self.trials += 1
        title = f"trial-{self.trials:02}"
        first = hosts[0]
        try:
            port = ray.get(self.actors[first].free_port.remote(self.addresses[first]), timeout=ANSWER)
        except ray.exceptions.RayError as error:
            return [
                self._lost(host, 0, error) if host == first else Report(host, 0, self.ranks[host], "ended")
                for host in hosts
            ]
        launch = Launch(
            environment=dict(self.request.environment),
            python=self.request.python,
            library=self.request.library,
        )
        calls: dict[Any, Job] = {}
        rank = 0
        for host in hosts:
            job = self._job(parts, host, rank, hosts, (self.addresses[first], port))
            calls[self.actors[host].run.remote(job, launch)] = job
            rank += job.here
        limit = time.monotonic() + sum(part.seconds for part in parts) + deadline.EXTRA
        return self._collect(calls, title, limit)

    def _job(self, parts: Sequence[Part], host: str, first: int, hosts: Sequence[str], master: tuple[str, int]) -> Job:
        return Job(
            parts,
            host,
            first=first,
            here=self.ranks[host],
            world=sum(self.ranks[one] for one in hosts),
            master=master,
            interface=self.interface,
            backend=self.request.backend,
        )

    def _collect(self, calls: dict[Any, Job], title: str, limit: float) -> list[Report]:
        import ray

        pending, reports = list(calls), {}
        while pending:
            done, pending = ray.wait(pending, num_returns=1, timeout=max(0.1, limit - time.monotonic()))
            if not done:
                break
            job = calls[done[0]]
            report = reports[job.host] = self._report(done[0], job, title)
            if report.status in ("failed", "lost") and pending:
                _, pending_now = ray.wait(pending, num_returns=len(pending), timeout=GRACE)
                for call in pending_now:
                    self.actors[calls[call].host].end.remote()
        silent = "its RankActor did not answer"
        return [reports.get(job.host) or self._lost(job.host, job.first, silent) for job in calls.values()]

    def _report(self, call: Any, job: Job, title: str) -> Report:
        import ray

        try:
            answer: tuple[Report, dict[str, str]] = ray.get(call, timeout=ANSWER)
        except ray.exceptions.RayError as error:
            return self._lost(job.host, job.first, error)
        report, files = answer
        named = {f"{title}/{job.host}/{name}": text for name, text in files.items()}
        self.files.update(named)
        return dataclasses.replace(report, evidence=tuple(named))

    def _lost(self, host: str, first: int, why: object) -> Report:
        return Report(host, first, self.ranks[host], "lost", tail=_reason(why))


def run_gates(group: RankGroup) -> list[tuple[GateResult, dict[str, str]]]:
    """All gates over all hosts together; and for each that fails and names nobody, rounds of trials that do.

    Returns each gate's result, and evidence files by name. A gate that did not begin is missing.
    """
    hosts = list(group.addresses)
    several = len(hosts) > 1 and group.request.bisect
    parts = shortened(group.request.parts(), FIRST_TRIAL if several else 1.0)
    reports = group.trial(hosts, parts)
    answers = []
    for asked, result in zip(group.request.gates, runner.evaluate(group.request, reports, parts), strict=False):
        files = {name: group.files[name] for name in result.evidence if name in group.files}
        if not (result.passed or not several or result.host or result.code in INCONCLUSIVE):
            before = set(group.files)
            group.end = time.monotonic() + asked.seconds() - result.seconds
            result = nccl_gate.conclude(result, bisect_hosts(group, asked, hosts))
            files |= {name: text for name, text in group.files.items() if name not in before}
        answers.append((result, files))
    return answers


def shortened(parts: Sequence[Part], share: float) -> list[Part]:
    """The parts with so much of their time, and a second less in all: for a first trial that leaves time for others."""
    return [dataclasses.replace(part, seconds=(part.seconds - 1.0 / len(parts)) * share) for part in parts]


def bisect_hosts(group: RankGroup, asked: Asked, hosts: Sequence[str]) -> bisect.Finding | None:
    """Rounds of trials of one gate within the time that is left; None when too little is left for any."""
    rounds_left = [1 if len(hosts) == 2 else bisect.MOST_ROUNDS]

    def run(groups: list[bisect.Group]) -> list[bool | None]:
        share = (group.remaining() - 1.0) / max(1, rounds_left[0]) - deadline.EXTRA / 2
        rounds_left[0] -= 1
        seconds = max(SHORTEST_ROUND, share)
        parts = [dataclasses.replace(part, seconds=seconds / len(asked.parts())) for part in asked.parts()]
        with ThreadPoolExecutor(max_workers=len(groups)) as pool:
            outcomes = pool.map(lambda hosts: group.trial(hosts, parts), groups)
            return [_proof(runner.evaluate_gate(asked, split(reports, parts))) for reports in outcomes]

    if group.remaining() < SHORTEST_ROUND:
        return None
    return bisect.locate(hosts, run)


def _proof(result: GateResult | None) -> bool | None:
    return None if result is None or result.code in INCONCLUSIVE else result.passed


def placement(request: Request, hosts: Mapping[str, str], table: gcs.Table) -> GateResult | dict[str, int]:
    """Ranks for each host, or why the rank group cannot be placed: Ray away, hosts missing, GPUs taken. Pure."""
    if table.head != "up":
        return _refusal(request, RAY_CODES[table.head], None, f"Ray's head does not answer: {table.error}")
    live = {node.address: node for node in table.nodes if node.alive and not node.draining}
    missing = [host for host, address in hosts.items() if address not in live]
    if missing:
        return _refusal(request, Code.HOST_MISSING, missing[0], f"{', '.join(missing)}: not in Ray")
    ranks = {host: int(live[address].gpus) for host, address in hosts.items()}
    without = [host for host, count in ranks.items() if count < 1]
    if without:
        return _refusal(request, Code.NO_GPUS, without[0], f"{', '.join(without)}: Ray has no GPU there")
    taken = [host for host, address in hosts.items() if live[address].free.get("GPU", 0.0) < live[address].gpus]
    if taken:
        cause = f"{', '.join(taken)}: an engine or job holds GPUs in Ray, so no rank group fits"
        return _refusal(request, Code.GPUS_BUSY, taken[0], cause)
    return ranks


def wait_for_placement(
    request: Request, hosts: Mapping[str, str], ask: Callable[[], gcs.Table], patience: float
) -> tuple[gcs.Table, GateResult | dict[str, int]]:
    """Ray's table, and what :func:`placement` makes of it. A rank group that cannot be placed is tried again for ``patience``
    seconds: on a busy host one answer gets lost, or the last group's GPUs are free a moment late, and neither proves anything.
    """
    end = time.monotonic() + patience
    while True:
        table = ask()
        found = placement(request, hosts, table)
        if not isinstance(found, GateResult) or time.monotonic() > end:
            return table, found
        time.sleep(0.5)


def _refusal(request: Request, code: Code, host: str | None, cause: str) -> GateResult:
    limit = f" --limit {host}" if host else ""
    return GateResult(
        request.first,
        "fail",
        0.0,
        code=code,
        host=host,
        cause=cause,
        next=f"ansible-playbook playbooks/status.yml{limit}",
    )


def run(ask: Mapping[str, Any]) -> list[tuple[GateResult, dict[str, str]]]:
    """Place the rank group, run the gates, and remove the placement group whatever happens."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    request = request_of(ask["request"])
    patience = request.gates[0].deadline
    end = time.monotonic() + patience
    hosts: dict[str, str] = ask["hosts"]
    cluster = gcs.Cluster(ask["head"], ask["port"], os.environ.get("RAY_AUTH_TOKEN") or gcs.token())
    table, ranks = wait_for_placement(request, hosts, cluster.table, min(PATIENCE, patience / 4))
    if isinstance(ranks, GateResult):
        return [(ranks, {})]
    ray.init(
        address=f"{ask['head']}:{ask['port']}",
        logging_level=logging.ERROR,
        log_to_driver=False,
        namespace="lockstep-gate",
        _node_ip_address=ask["address"],
    )
    gpus = {node.address: node.gpus for node in table.nodes if node.alive}
    bundles = [{"GPU": gpus[hosts[host]], f"node:{hosts[host]}": 0.001} for host in hosts]
    placed = placement_group(bundles, strategy="STRICT_SPREAD")
    try:
        if not placed.wait(min(PLACING, end - time.monotonic())):
            cause = "Ray did not create the placement group of the rank group in time"
            return [(_refusal(request, Code.NOT_PLACED, None, cause), {})]
        actor = ray.remote(RankActor)
        actors = {
            host: actor.options(
                num_cpus=0,
                num_gpus=bundles[index]["GPU"],
                max_concurrency=4,
                scheduling_strategy=PlacementGroupSchedulingStrategy(placed, placement_group_bundle_index=index),
            ).remote()
            for index, host in enumerate(hosts)
        }
        refused = _existing_gpu_processes(request, actors)
        if refused:
            return [(refused, {})]
        return run_gates(RankGroup(less_of_the_first(request, end), hosts, ranks, ask["interface"], actors))
    finally:
        remove_placement_group(placed)
        ray.shutdown()  # left to the interpreter's end, it waits half a second for messages that nobody is sent


def less_of_the_first(request: Request, end: float) -> Request:
    """The request with so much less time for its first gate as placing its ranks has taken: that must be over at ``end``."""
    first, *others = request.gates
    left = max(SHORTEST_ROUND, end - time.monotonic())
    return dataclasses.replace(request, gates=(dataclasses.replace(first, deadline=min(first.deadline, left)), *others))


def _existing_gpu_processes(request: Request, actors: Mapping[str, Any]) -> GateResult | None:
    import ray

    asked = {host: actor.existing_gpu_processes.remote() for host, actor in actors.items()}
    for host, answer in asked.items():
        try:
            held = ray.get(answer, timeout=PLACING)
        except ray.exceptions.RayError as error:
            return _refusal(request, Code.HOST_LOST, host, f"{host}: its RankActor did not start: {error}")
        if held:
            return runner.existing_gpu_processes(request, host, held)
    return None


def main() -> int:
    answers = [
        {"result": as_json(result), "files": {} if result.passed else files}
        for result, files in run(json.load(sys.stdin))
    ]
    print("LOCKSTEP-RESULT " + json.dumps(answers), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
