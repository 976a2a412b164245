"""The network gate: whether hosts reach each other as Ray, NCCL and vLLM need. ``evaluate`` is pure; ``check`` probes."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core import deadline, typed, untrusted
from ..core.codes import as_json
from ..core.host_record import HostRecord
from ..ray import firewall_live
from ..ray.ports import NETWORK_GATE, engine_ports, ray_ports, reached_by_peers, reached_on_head
from . import rdma
from .bisect import sorted_pair
from .codes import Code
from .findings import INSTALL, Command, Problem, cause_and_next, on_host, verify
from .network_observations import Observations
from .result import GateResult

GATE = "network"
UNITS = ("lockstep-ray.service", "lockstep-vllm.service")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is demanded.

    Attributes:
        look_up_seconds: of both look-ups of one name together.
        rtt_ms: round trip between hosts; None demands nothing.
        clock_skew_seconds: between two hosts.
        shm_mib: /dev/shm as the units see it.
        rdma: that at least one RDMA port of the kind that is there for collectives can carry one (rdma.py).
    """

    look_up_seconds: float = 1.0
    rtt_ms: float | None = 5.0
    clock_skew_seconds: float = 1.0
    shm_mib: int = 1024
    rdma: bool = False


def evaluate(
    seen: Observations, identity: HostRecord, limits: Limits, seconds: float, filter_problem: str = ""
) -> GateResult:
    """Verdict from what ``network_probe.probe`` observed on this host. The first problem gives the code and the host.

    Args:
        seen: the observations.
        identity: host.json.
        limits: see Limits.
        seconds: how long it took.
        filter_problem: why the packet filter that all of this passed is not the wanted one; "" where it is, or none is wanted.
    """
    me = str(identity["host"])
    problems = [
        *_names(seen, me, limits),
        *_interface(seen, identity),
        *_filter(filter_problem, me),
        *_silent(seen, me),
        *_ports(seen, me),
        *_mtu(seen, me),
        *_distance(seen, identity, limits),
        *_clocks(seen, me, limits),
        *_units(seen, me, limits),
        *_rdma(seen, me, limits),
    ]
    measured = {
        "peers": {
            name: {key: peer.get(key) for key in ("rtt_ms", "clock_skew_seconds", "mtu", "unreachable")}
            for name, peer in seen["peers"].items()
        },
        "look_up_seconds": max((name["seconds"] for name in seen["names"].values()), default=0.0),
        "problems": as_json(problems),
    }
    floor = {name: value for name, value in dataclasses.asdict(limits).items() if value not in (None, False)}
    warnings = tuple(_warnings(seen, me, limits))
    if not problems:
        return GateResult(GATE, "pass", seconds, host=me, measured=measured, floor=floor, warnings=warnings)
    first = problems[0]
    cause, following = cause_and_next(
        "; ".join(dict.fromkeys(problem.cause for problem in problems)), first.remediation, first.host
    )
    return GateResult(
        GATE,
        "fail",
        seconds,
        code=first.code,
        host=first.host,
        pair=first.pair,
        measured=measured,
        floor=floor,
        cause=cause,
        next=following,
        warnings=warnings,
    )


def check(
    identity: HostRecord,
    limits: Limits,
    *,
    seconds: float,
    wait: float,
    evidence: Path,
    library: Path,
    user: str | None = None,
) -> GateResult:
    """Probe from this host, under a deadline, and evaluate.

    Args:
        identity: host.json.
        limits: see Limits.
        seconds: the gate's deadline.
        wait: how long the hosts wait for each other; all have to be asked within it.
        evidence: folder for evidence.
        library: folder that holds the package ``lockstep``.
        user: who probes; None keeps the caller.
    """
    began = time.monotonic()
    unfiltered = firewall_live.state()["problem"]  # by the caller: who probes may not ask the kernel for its rules
    job = {"identity": identity, "seconds": wait, "units": UNITS, **ports()}
    outcome = deadline.run(
        [sys.executable, "-s", "-B", "-m", "lockstep.gates.network_probe"],
        deadline=seconds,
        env={"PYTHONPATH": str(library), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        cwd="/",
        input=json.dumps(job),
        evidence=evidence,
        user=user,
    )
    spent = round(time.monotonic() - began, 3)
    last = (outcome.stderr.strip().splitlines() or ["no output"])[-1]
    if outcome.status == "done":
        try:
            seen = typed.parse(Observations, untrusted.parse_json(outcome.stdout))
            return evaluate(seen, identity, limits, spent, unfiltered)
        except (ValueError, KeyError) as error:  # a peer that answers nonsense, or a probe that is not ours
            last = f"its observations cannot be used: {error}"
    hung = outcome.status == "timeout"
    return GateResult(
        GATE,
        "timeout" if hung else "fail",
        spent,
        code=Code.PROBE_HANGS if hung else Code.PROBE_FAILED,
        host=str(identity["host"]),
        evidence=outcome.evidence,
        cause=f"the probe {'did not end before its deadline' if hung else f'failed: {last}'}",
        next=verify(str(identity["host"])),
    )


def ports() -> dict[str, Sequence[int]]:
    """Ports that peers must reach: ``ports`` on every host, ``head_ports`` on the head besides."""
    ray = ray_ports()
    return {"ports": reached_by_peers(ray), "head_ports": reached_on_head(ray, engine_ports())}


def _names(seen: Observations, me: str, limits: Limits) -> Iterator[Problem]:
    bad = {name: found["problem"] for name, found in seen["names"].items() if found["problem"]}
    if bad:
        listed = "; ".join(bad.values())
        yield Problem(Code.NAMES, me, f"on {me} names do not resolve both ways: {listed}", INSTALL)
    slow = {
        name: found["seconds"] for name, found in seen["names"].items() if found["seconds"] > limits.look_up_seconds
    }
    if slow and not bad:
        listed = ", ".join(f"{name} {seconds:g} s" for name, seconds in slow.items())
        yield Problem(Code.NAMES_SLOW, me, f"on {me} names resolve too slowly: {listed}", INSTALL)


def _interface(seen: Observations, identity: HostRecord) -> Iterator[Problem]:
    if not seen["interface"]["owns"]:
        owners = ", ".join(seen["interface"]["owners"]) or "no interface"
        me = str(identity["host"])
        yield Problem(
            Code.INTERFACE,
            me,
            f"{identity['address']} of {me} is not on {identity['interface']}: {owners} has it",
            f"Set gpu_host_interface or gpu_host_address of {me}",
        )
    if seen["control_error"]:
        me = str(identity["host"])
        yield Problem(
            Code.PORT_TAKEN, me, f"on {me} {seen['control_error']}", on_host(me, f"ss -ltnp sport = :{NETWORK_GATE}")
        )


def _filter(problem: str, me: str) -> Iterator[Problem]:
    if problem:
        cause = f"the packet filter of {me} is not as wanted: {problem}"
        yield Problem(Code.UNFILTERED, me, cause, Command(f"ansible-playbook site.yml --limit {me}"))


def _silent(seen: Observations, me: str) -> Iterator[Problem]:
    silent = {name: peer["silent"] for name, peer in seen["peers"].items() if peer["silent"]}
    if not silent:
        return
    everyone = len(silent) == len(seen["peers"]) > 1
    for name, reason in silent.items():
        blamed = me if everyone else name
        yield Problem(
            Code.PEER_SILENT,
            blamed,
            f"{name} does not answer {me} on port {NETWORK_GATE}: {reason}",
            verify(f"{name},{me}"),
            sorted_pair(me, name),
        )


def _ports(seen: Observations, me: str) -> Iterator[Problem]:
    for name, peer in seen["peers"].items():
        if peer["unreachable"]:
            yield _blocked(name, me, peer["unreachable"])
    for name, unreachable in seen["complaints"].items():
        if unreachable:
            yield _blocked(me, name, unreachable)


def _blocked(owner: str, asker: str, unreachable: Sequence[int]) -> Problem:
    listed = ", ".join(str(port) for port in unreachable)
    return Problem(
        Code.PORT_BLOCKED,
        owner,
        f"{owner} does not let {asker} reach its port{'s' if len(unreachable) > 1 else ''} {listed}",
        on_host(owner, "nft list ruleset"),
        sorted_pair(owner, asker),
    )


def _mtu(seen: Observations, me: str) -> Iterator[Problem]:
    promised = seen["interface"]["mtu"]
    for name, peer in seen["peers"].items():
        if peer["silent"] or peer["mtu"] == promised:
            continue
        carried = f"at most {peer['mtu']} bytes" if peer["mtu"] else "no datagram at all"
        yield Problem(
            Code.MTU,
            me,
            f"{me} to {name} carries {carried} unfragmented, the interface promises {promised}",
            f"Set the same MTU on both interfaces and every switch between {me} and {name}",
            sorted_pair(me, name),
        )


def _distance(seen: Observations, identity: HostRecord, limits: Limits) -> Iterator[Problem]:
    me = str(identity["host"])
    for name, peer in seen["peers"].items():
        if peer["silent"]:
            continue
        if peer["zone"] != identity.get("zone"):
            yield Problem(
                Code.ZONE,
                name,
                f"{name} declares zone {peer['zone'] or 'none'}, {me} declares {identity.get('zone') or 'none'}",
                "Set gpu_host_zone alike on all hosts of a replica",
                sorted_pair(me, name),
            )
        if limits.rtt_ms is not None and peer["rtt_ms"] > limits.rtt_ms:
            yield Problem(
                Code.RTT,
                name,
                f"a round trip from {me} to {name} takes {peer['rtt_ms']:g} ms, {limits.rtt_ms:g} ms is allowed",
                f"Check that {me} and {name} stand in the same zone and that the link is not congested",
                sorted_pair(me, name),
            )


def _clocks(seen: Observations, me: str, limits: Limits) -> Iterator[Problem]:
    skewed = {
        name: peer["clock_skew_seconds"]
        for name, peer in seen["peers"].items()
        if not peer["silent"] and abs(peer["clock_skew_seconds"]) > limits.clock_skew_seconds
    }
    own_fault = len(skewed) == len(seen["peers"]) > 1
    for name, skew in skewed.items():
        blamed = me if own_fault else name
        yield Problem(
            Code.CLOCK_SKEW,
            blamed,
            f"the clock of {name} is {skew:+.3f} s against that of {me}, {limits.clock_skew_seconds:g} s is allowed",
            Command(f"ansible {me},{name} -m ansible.builtin.command -a timedatectl"),
            sorted_pair(me, name),
        )


def _units(seen: Observations, me: str, limits: Limits) -> Iterator[Problem]:
    for unit, found in seen["limits"].items():
        if not found["installed"]:
            continue
        if found["shm_mib"] is not None and found["shm_mib"] < limits.shm_mib:
            yield Problem(
                Code.SHM,
                me,
                f"/dev/shm of {unit} on {me} has {found['shm_mib']} MiB, {limits.shm_mib} are required",
                "Set gpu_host_shm_mib, then ansible-playbook site.yml",
            )
        if found["memlock_bytes"] is not None and seen["rdma"]:
            yield Problem(
                Code.MEMLOCK,
                me,
                f"{unit} on {me} may lock {found['memlock_bytes']} bytes of memory, and RDMA needs all of it",
                INSTALL,
            )


def _rdma(seen: Observations, me: str, limits: Limits) -> Iterator[Problem]:
    if limits.rdma and not rdma.usable(seen["rdma"]):
        wanted = rdma.rails(seen["rdma"])
        found = ", ".join(f"{rdma.name(port)} {rdma.obstacle(port)}" for port in wanted) or "none"
        others = [rdma.name(port) for port in seen["rdma"] if port not in wanted and rdma.obstacle(port) is None]
        beside = f"; {', '.join(others)} of another kind can, and is not counted" if others else ""
        yield Problem(
            Code.RDMA_DOWN,
            me,
            f"no RDMA port of {me} can carry a collective: {found}{beside}",
            f"On {me}: ibstat; show_gids; ip -brief address",
        )


def _warnings(seen: Observations, me: str, limits: Limits) -> Iterator[str]:
    active = [rdma.name(port) for port in seen["rdma"] if port["state"] == rdma.ACTIVE and port["gids"]]
    if active:
        yield f"RDMA on {me}, {', '.join(active)}: no packet filter sees it and nothing encrypts it"
    obstacles = {rdma.name(port): (port, rdma.obstacle(port)) for port in seen["rdma"]}
    # An address is wanted of the rails alone, and only where RDMA is.
    rails = [rdma.name(port) for port in rdma.rails(seen["rdma"])] if limits.rdma else []
    down = [
        f"{name} {obstacle}"
        for name, (port, obstacle) in obstacles.items()
        if obstacle and (port["state"] != rdma.ACTIVE or name in rails)
    ]
    if down:
        yield f"RDMA on {me}: {', '.join(down)}"
