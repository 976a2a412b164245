"""Rolls reported to a tracker by a clock that the test moves: the journals that the report's tests are made of."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import run_plan
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import Observed
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.plan import Plan, Run
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.policy import Policy, Share
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Mode, Need
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.topology import Replica, Topology
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.waves import ReplicaNeed, WavePlan, waves
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import events, journal, tracker

PLAN_ACTION = "lockstep.vllm.plan"
BEGAN = 1795309800.0  # 2026-11-22T01:10:00Z
OLD = {"driver": "550.90.07", "fabric_manager": "550.90.07", "kernel": "6.1.0-28", "nccl": "2.27.5", "vllm": "0.32.0"}
NEW = {**OLD, "driver": "550.127.05", "fabric_manager": "550.127.05"}
STEPS: Mapping[str, float] = {
    "drain": 24,
    "quarantine": 1,
    "driver": 48,
    "load": 31,
    "gates": 52,
    "ray": 9,
    "wait": 6,
    "serve": 74,
    "prove": 3,
    "admit": 2,
    "bake": 60,
}


class Clock:
    """Seconds that only go on when a test moves them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def gate(name: str, host: str, verdict: str = "pass", **more: Any) -> dict[str, Any]:
    measured = {"busbw_gbps": 431.25} if name == "nccl" else {"replays": 200}
    floor = {"busbw_gbps": 400.0} if name == "nccl" else {}
    return {
        "gate": name,
        "verdict": verdict,
        "seconds": 3.1,
        "host": host,
        "measured": measured,
        "floor": floor,
        "backend": "nccl",
        **more,
    }


def plan(replicas: Sequence[str]) -> dict[str, Any]:
    """What the plan action makes of a cluster: one replica per wave, two hosts each, all serving.

    replica_q is quarantined and replica_z is up to date: neither is in a wave.
    """
    members = {name: tuple(f"{name.removeprefix('replica_')}{n}" for n in (1, 2)) for name in replicas}
    why = ("driver: package 550.90.07, desired 550.127.05",)
    needs = [
        *[ReplicaNeed(name, hosts, None, True, Need.DUE, dict.fromkeys(hosts, why)) for name, hosts in members.items()],
        ReplicaNeed("replica_q", ("q1", "q2"), None, False, Need.QUARANTINED, {"q1": ("Xid 79",)}),
        ReplicaNeed("replica_z", ("z1",), None, True, Need.UP_TO_DATE),
    ]
    run = Run(Mode.UPGRADE, Policy(wave_size=Share(1)), datetime.datetime.fromtimestamp(BEGAN, datetime.UTC))
    decided = waves(needs, run.policy, run.now)
    assert isinstance(decided, WavePlan)
    topology = Topology(tuple(Replica(need.name, need.hosts[0], need.hosts[1:], {}) for need in needs))
    observed = {host: Observed() for need in needs for host in need.hosts}
    planned = Plan(waves=decided.waves, skipped=decided.skipped)
    return run_plan.as_dict("20261122T011000Z-ab12", run, planned, topology, observed, [])


class Roll:
    """A roll under way; ``events`` is its journal so far."""

    def __init__(self, replicas: Sequence[str] = ("replica_a", "replica_b", "replica_c"), typical: float | None = None):
        self.clock = Clock()
        self.tracker = tracker.Tracker(self.clock, typical)
        self.plan = plan(replicas)
        start = {
            "event": "run_started",
            "elapsed": 0.0,
            "playbook": "upgrade_driver",
            "controller": "ops1",
            "user": "ada",
        }
        self.events: list[dict[str, Any]] = []
        self.add([start])
        hosts = [host for wave in self.plan["waves"] for host in wave["hosts"]]
        self.result("ops1", {"lockstep_plan": self.plan, "fingerprints": dict.fromkeys(hosts, OLD)})

    def add(self, happened: Sequence[Mapping[str, Any]]) -> None:
        self.events += [{"at": journal.stamp(BEGAN + event["elapsed"]), **event} for event in happened]

    def result(
        self,
        host: str,
        result: Mapping[str, Any],
        outcome: events.TaskOutcome = "ok",
        task: str = "Do something",
    ) -> None:
        action = PLAN_ACTION if "lockstep_plan" in result else "lockstep.vllm.stand_in"
        self.add(self.tracker.task_ends(events.TaskReport.parse(host, task, outcome, result, action)))

    def step(
        self,
        hosts: Sequence[str],
        name: str,
        seconds: float,
        results: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        """One step on several hosts at once; the last host takes a little longer than the first."""
        for host in hosts:
            self.add(self.tracker.task_starts(host, name))
        for n, host in enumerate(hosts):
            self.clock.now += seconds if n == 0 else seconds * 0.1
            for result in (results or {}).get(host, [{}]):
                self.result(host, result)

    def wave(self, n: int, steps: Mapping[str, float] = STEPS) -> None:
        hosts = self.plan["waves"][n - 1]["hosts"]
        for name, seconds in steps.items():
            results: dict[str, Any] = {}
            if name == "load":
                results = {host: [{"state": {"fingerprint": NEW}}] for host in hosts}
            if name == "gates":
                results = {host: [{"gate": gate(which, host)} for which in ("nccl", "graph")] for host in hosts}
            self.step(hosts, name, seconds, results)
        self.add(self.tracker.play_starts())

    def end(self, outcome: events.RunOutcome) -> None:
        self.add(self.tracker.ends(outcome))


def good() -> list[dict[str, Any]]:
    """Three waves, all well."""
    roll = Roll()
    roll.step(("a1", "a2", "b1", "b2", "c1", "c2"), "prepare", 30)
    roll.add(roll.tracker.play_starts())
    for n in (1, 2, 3):
        roll.wave(n)
    roll.end("done")
    return roll.events


def hanging() -> list[dict[str, Any]]:
    """The second wave's graphs hang when two hosts take part; it is restored and serves again; the run fails."""
    roll = Roll()
    roll.wave(1)
    roll.wave(2, {name: STEPS[name] for name in ("drain", "quarantine", "driver", "load")})
    for host in ("b1", "b2"):
        roll.add(roll.tracker.task_starts(host, "gates"))
    roll.clock.now += 90
    hang = gate(
        "graph",
        "b2",
        "timeout",
        pair=["b1", "b2"],
        seconds=60.0,
        cause="graph capture hangs as soon as b1 and b2 take part together; each alone passes",
        evidence=["/var/lib/lockstep/evidence/20261122T011000Z-ab12/graph/stacks.txt"],
        next="ansible-playbook playbooks/diagnose.yml --limit b1,b2",
    )
    for host in ("b1", "b2"):
        roll.result(
            host, {"failed": True, "msg": "a gate failed", "gate": hang}, "failed", "Run the gates of the replica"
        )
    roll.step(("b1", "b2"), "restore", 84, {host: [{"state": {"fingerprint": OLD}}] for host in ("b1", "b2")})
    for name in ("gates", "ray", "wait", "serve", "prove", "admit"):
        results = (
            {host: [{"gate": gate("graph", host, seconds=4.2)}] for host in ("b1", "b2")} if name == "gates" else {}
        )
        roll.step(("b1", "b2"), name, STEPS[name], results)
    roll.add(roll.tracker.play_starts())
    for host in ("b1", "b2"):
        verdict = "Wave 2 did not pass: b1, b2 run 550.90.07 again and serve; replica_c was not touched"
        roll.result(host, {"msg": verdict, "next": ""}, "failed", "Fail unless the wave succeeded")
    roll.end("failed")
    return roll.events


def killed() -> list[dict[str, Any]]:
    """The controller dies while the first wave loads its driver."""
    roll = Roll()
    roll.wave(1, {name: STEPS[name] for name in ("drain", "quarantine", "driver")})
    for host in ("a1", "a2"):
        roll.add(roll.tracker.task_starts(host, "load"))
    roll.clock.now += 20
    roll.result("a1", {})
    return roll.events


def prefixes(events: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Every journal that a kill could have left of this one."""
    for length in range(len(events) + 1):
        yield events[:length]
