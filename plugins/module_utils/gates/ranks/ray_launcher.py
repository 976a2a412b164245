"""A gate across the hosts of a replica, through Ray: gang-placed, in trials, with the bad host or pair sought out.

``python -m lockstep.gates.ranks.ray_launcher`` runs on the head under the serving environment's Python, reads what is asked
from standard input and writes one line ``LOCKSTEP-RESULT {…}``. On every host an actor, which holds that host's GPUs, starts
the ranks under the guard of ``deadline``. When this process ends, however it ends, Ray ends the actors, and their guards the
ranks.
"""

from __future__ import annotations

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

from ...core import deadline
from ...driver import memory as gpu_memory
from ...ray import gcs
from .. import bisect, runner
from .. import nccl as nccl_gate
from ..result import GateResult
from . import launcher
from .launcher import Job, Report

PATIENCE = 10.0
"""Seconds for which Ray is asked again, where a gang cannot be placed."""
PLACING = 30.0
"""Seconds that placing the actors may take."""
ANSWER = 10.0
"""Seconds within which an actor answers a small question."""
GRACE = 1.0
"""Seconds between the first rank's failure and the end of the others, so that they can tell what they saw."""
SHORTEST_ROUND = 5.0
UNPROVEN = ("out_of_time", "host_lost", "no_floor")
"""Verdicts that say nothing about the hosts of a trial."""
FILE_LIMIT = 128 << 10
FILES_LIMIT = 40


class Seat:
    """The actor on one host: it holds the host's GPUs, starts the ranks and brings home what became of them."""

    def __init__(self) -> None:
        self._running: launcher.RunningGang | None = None
        self._lock = threading.Lock()

    def guests(self) -> list[str]:
        """Who holds GPU memory on this host already."""
        return [str(holder) for holder in gpu_memory.holders()]

    def port(self, address: str) -> int:
        """A port for rank 0 on this host."""
        return launcher.free_port(address)

    def run(self, job: dict[str, Any], options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Run this host's ranks. Returns the report as a dictionary, and evidence files by name."""
        folder = Path(tempfile.mkdtemp(prefix="lockstep-evidence-"))
        try:
            with self._lock:
                running = launcher.begin(
                    Job(**{**job, "master": tuple(job["master"])}),
                    seconds=options["seconds"],
                    evidence=folder,
                    environment=options["environment"],
                    python=options["python"],
                    library=options["library"],
                )
                self._running = running
            report = running.wait()
            return dataclasses.asdict(report), _contents(folder)
        finally:
            self._running = None
            shutil.rmtree(folder, ignore_errors=True)

    def end(self) -> None:
        """End the ranks that run now."""
        running = self._running
        if running is not None:
            running.end()


def _contents(folder: Path) -> dict[str, str]:
    """The last part of every file in the folder, by name."""
    found = {}
    for path in sorted(folder.rglob("*"))[:FILES_LIMIT]:
        if path.is_file():
            raw = path.read_bytes()[-FILE_LIMIT:]
            found[path.name] = raw.decode("utf-8", "replace")
    return found


@dataclasses.dataclass
class Members:
    """The replica's hosts with their actors."""

    request: runner.Request
    addresses: Mapping[str, str]
    ranks: Mapping[str, int]
    interface: str
    seats: Mapping[str, Any]
    end: float
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    trials: int = 0

    def remaining(self) -> float:
        """Seconds until the gate's deadline."""
        return self.end - time.monotonic()

    def trial(self, hosts: Sequence[str], seconds: float) -> list[Report]:
        """Run one gang over some of the hosts. Never longer than ``seconds`` and what the guards need at their end."""
        import ray

        self.trials += 1
        title = f"trial-{self.trials:02}"
        first = hosts[0]
        try:
            port = ray.get(self.seats[first].port.remote(self.addresses[first]), timeout=ANSWER)
        except ray.exceptions.RayError as error:
            return [self._lost(host, 0, error) if host == first else self._unused(host, 0) for host in hosts]
        calls: dict[Any, Job] = {}
        rank = 0
        for host in hosts:
            job = self._job(host, rank, hosts, (self.addresses[first], port))
            calls[self.seats[host].run.remote(dataclasses.asdict(job), self._options(seconds))] = job
            rank += job.here
        return self._collect(calls, title, time.monotonic() + seconds + deadline.EXTRA)

    def _job(self, host: str, first: int, hosts: Sequence[str], master: tuple[str, int]) -> Job:
        return Job(
            runner.WORKS[self.request.gate],
            self.request.params,
            host,
            first=first,
            here=self.ranks[host],
            world=sum(self.ranks[one] for one in hosts),
            master=master,
            interface=self.interface,
            backend=self.request.backend,
        )

    def _options(self, seconds: float) -> dict[str, Any]:
        return {
            "seconds": seconds,
            "environment": dict(self.request.environment),
            "python": self.request.python,
            "library": self.request.library,
        }

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
                    self.seats[calls[call].host].end.remote()
        silent = "its actor did not answer"
        return [reports.get(job.host) or self._lost(job.host, job.first, silent) for job in calls.values()]

    def _report(self, call: Any, job: Job, title: str) -> Report:
        import ray

        try:
            record, files = ray.get(call, timeout=ANSWER)
        except ray.exceptions.RayError as error:
            return self._lost(job.host, job.first, error)
        named = {f"{title}/{job.host}/{name}": text for name, text in files.items()}
        self.files.update(named)
        fields: dict[str, Any] = {**record, "evidence": tuple(named)}
        return Report(**fields)

    def _lost(self, host: str, first: int, why: object) -> Report:
        return Report(host, first, self.ranks[host], "lost", tail=str(why)[:500])

    def _unused(self, host: str, first: int) -> Report:
        return Report(host, first, self.ranks[host], "ended")


def examine(members: Members) -> GateResult:
    """All hosts together; and where that fails and names nobody, rounds of trials that do."""
    hosts = list(members.addresses)
    several = len(hosts) > 1 and members.request.localise
    whole = members.remaining() - 1.0
    reports = members.trial(hosts, whole * (0.55 if several else 1.0))
    result = runner.judge(members.request, reports)
    if result.passed or not several or result.host or result.code in UNPROVEN:
        return result
    return nccl_gate.conclude(result, seek(members, hosts))


def seek(members: Members, hosts: Sequence[str]) -> bisect.Finding | None:
    """Rounds of trials within the time that is left; None when too little is left for any."""
    rounds_left = [1 if len(hosts) == 2 else bisect.MOST_ROUNDS]

    def run(groups: list[bisect.Group]) -> list[bool | None]:
        share = (members.remaining() - 1.0) / max(1, rounds_left[0]) - deadline.EXTRA / 2
        rounds_left[0] -= 1
        seconds = max(SHORTEST_ROUND, share)
        with ThreadPoolExecutor(max_workers=len(groups)) as pool:
            outcomes = pool.map(lambda group: members.trial(group, seconds), groups)
            return [_proof(runner.judge(members.request, reports)) for reports in outcomes]

    if members.remaining() < SHORTEST_ROUND:
        return None
    return bisect.locate(hosts, run)


def _proof(result: GateResult) -> bool | None:
    return None if result.code in UNPROVEN else result.passed


def not_ready(request: runner.Request, hosts: Mapping[str, str], table: gcs.Table) -> GateResult | dict[str, int]:
    """Ranks for each host, or why the gang cannot be placed: Ray away, hosts missing, GPUs taken. Pure."""
    if table.head != "up":
        return _refusal(request, "ray_" + table.head, None, f"Ray's head does not answer: {table.error}")
    live = {node.address: node for node in table.nodes if node.alive and not node.draining}
    missing = [host for host, address in hosts.items() if address not in live]
    if missing:
        return _refusal(request, "host_missing", missing[0], f"{', '.join(missing)}: not in Ray")
    ranks = {host: request.ranks_per_host or int(live[address].gpus) for host, address in hosts.items()}
    without = [host for host, count in ranks.items() if count < 1]
    if without:
        return _refusal(request, "no_gpus", without[0], f"{', '.join(without)}: Ray has no GPU there")
    taken = [host for host, address in hosts.items() if live[address].free.get("GPU", 0.0) < live[address].gpus]
    if taken:
        return _refusal(
            request, "gpus_busy", taken[0], f"{', '.join(taken)}: an engine or job holds GPUs in Ray, so no gang fits"
        )
    return ranks


def settled(
    request: runner.Request, hosts: Mapping[str, str], ask: Callable[[], gcs.Table], patience: float
) -> tuple[gcs.Table, GateResult | dict[str, int]]:
    """Ray's table, and what :func:`not_ready` says of it. A gang that cannot be placed is looked at again for ``patience``
    seconds: on a busy host one answer gets lost, or the last gang's GPUs are free a moment late, and neither proves anything.
    """
    end = time.monotonic() + patience
    while True:
        table = ask()
        found = not_ready(request, hosts, table)
        if not isinstance(found, GateResult) or time.monotonic() > end:
            return table, found
        time.sleep(0.5)


def _refusal(request: runner.Request, code: str, host: str | None, cause: str) -> GateResult:
    limit = f" --limit {host}" if host else ""
    return GateResult(
        request.gate,
        "fail",
        0.0,
        code=code,
        host=host,
        cause=cause,
        next=f"ansible-playbook playbooks/status.yml{limit}",
    )


def run(ask: Mapping[str, Any]) -> tuple[GateResult, dict[str, str]]:
    """Place the gang, examine, and remove the placement whatever happens."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    request = runner.request_of(ask["request"])
    end = time.monotonic() + request.deadline
    hosts: dict[str, str] = ask["hosts"]
    cluster = gcs.Cluster(ask["head"], ask["port"], os.environ.get("RAY_AUTH_TOKEN") or gcs.token())
    table, ranks = settled(request, hosts, cluster.table, min(PATIENCE, request.deadline / 4))
    if isinstance(ranks, GateResult):
        return ranks, {}
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
            return _refusal(request, "not_placed", None, "Ray did not place the gang in time"), {}
        actor = ray.remote(Seat)
        seats = {
            host: actor.options(
                num_cpus=0,
                num_gpus=bundles[index]["GPU"],
                max_concurrency=4,
                scheduling_strategy=PlacementGroupSchedulingStrategy(placed, placement_group_bundle_index=index),
            ).remote()
            for index, host in enumerate(hosts)
        }
        members = Members(request, hosts, ranks, ask["interface"], seats, end)
        crowded = _guests(request, seats)
        return (crowded, {}) if crowded else (examine(members), members.files)
    finally:
        remove_placement_group(placed)


def _guests(request: runner.Request, seats: Mapping[str, Any]) -> GateResult | None:
    import ray

    if request.allow_gpu_processes:
        return None
    for host, seat in seats.items():
        try:
            held = ray.get(seat.guests.remote(), timeout=PLACING)
        except ray.exceptions.RayError as error:
            return _refusal(request, "host_lost", host, f"{host}: its actor did not start: {error}")
        if held:
            return runner.guests(request, host, held)
    return None


def main() -> int:
    result, files = run(json.load(sys.stdin))
    wanted = {} if result.passed else files
    print("LOCKSTEP-RESULT " + json.dumps({"result": result.as_dict(), "files": wanted}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
