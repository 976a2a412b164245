"""The one-page verdict on a sick replica, from what its hosts and its gates report. Pure."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from ..core.wording import many
from ..driver.known_issues import Match
from ..engine import state as engine_state
from ..engine.record import EngineState
from .codes import Code
from .graph import GRAPH_CODES
from .result import GateResult

WIDTH = 72
"""Ansible's output wraps at 80, its indentation included."""
ONLY_GRAPHS_FAIL = GRAPH_CODES | {Code.WRONG_RESULTS, Code.TOO_SLOW}
"""The graph gate gives these when eager has passed."""
OWN_GATES = ("driver", "network", "nccl", "graph")
"""Gates of a host, in the order in which a failure of one explains those after it."""
REPLICA_GATES = ("nccl", "graph")


@dataclasses.dataclass(frozen=True)
class HostFindings:
    """What is known of one host.

    Attributes:
        fingerprint: exact versions, as ``fingerprint.compose`` gives them; empty when the host did not answer.
        gates: results by gate name; a gate that did not run is missing.
        issues: known issues that fit the host.
        quarantined: why it is in quarantine; None where it is not.
    """

    fingerprint: Mapping[str, str | None]
    gates: Mapping[str, GateResult]
    issues: Sequence[Match] = ()
    quarantined: str | None = None


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """What is wrong, where, and what to do."""

    headline: str
    where: str
    advice: tuple[str, ...]


def conclude(
    hosts: Mapping[str, HostFindings], replica: Mapping[str, GateResult], engine: EngineState | None = None
) -> Conclusion:
    """The first thing that is wrong, in the order in which one thing explains the next.

    Args:
        hosts: by name; one that did not answer has an empty fingerprint.
        replica: results of the gates across the hosts; missing when they did not run.
        engine: what the engine reports of itself, if there is one.
    """
    silent = [name for name, host in hosts.items() if not host.fingerprint]
    if silent:
        return Conclusion(
            f"{', '.join(silent)} did not answer", ", ".join(silent), ("Bring the host back, then run this again.",)
        )
    for gate in OWN_GATES:
        failed = [(name, host.gates[gate]) for name, host in hosts.items() if gate in host.gates]
        failed = [(name, result) for name, result in failed if not result.passed]
        if failed:
            return _of_host(gate, failed, hosts)
    for gate in REPLICA_GATES:
        if gate in replica and not replica[gate].passed:
            return _of_replica(replica[gate], hosts)
    if engine and engine_state.failed(engine.ladder):
        return _of_ladder(engine, hosts)
    missing = [gate for gate in REPLICA_GATES if gate not in replica]
    if missing:
        return Conclusion(
            "nothing found so far: the gates that need the GPUs did not run",
            "–",
            ("The engine holds the GPUs. To stop it for the tests: ansible-playbook … -e diagnose_disturb=true",),
        )
    return Conclusion(
        "every gate passes: driver, network, collectives and graphs are good",
        "–",
        ("Look at the engine: journalctl -u lockstep-vllm on the head, and its ladder above.",),
    )


def page(
    replica: str,
    hosts: Mapping[str, HostFindings],
    gates: Mapping[str, GateResult],
    engine: EngineState | None,
    head: str,
) -> str:
    """The page: verdict, gates, versions, known issues, what to do; no line but of the latter longer than ``WIDTH``."""
    end = conclude(hosts, gates, engine)
    return "\n".join(
        [
            *_wrapped(f"VERDICT on {replica}: {end.headline}"),
            *_wrapped(f"where: {end.where}", "       "),
            "",
            *_gates(hosts, gates),
            "",
            *_versions(hosts),
            *_engine(engine, head),
            *_issues(hosts),
            "",
            "WHAT TO DO",
            *(f"- {advice}" for advice in end.advice),  # it holds commands, which are pasted as they stand
            *_evidence(hosts, gates),
        ]
    )


def _of_host(gate: str, failed: Sequence[tuple[str, GateResult]], hosts: Mapping[str, HostFindings]) -> Conclusion:
    first = failed[0][1]
    blamed = ", ".join(sorted({result.host or name for name, result in failed}))
    cause = first.cause
    if gate == "graph" and first.code in ONLY_GRAPHS_FAIL:
        cause = f"eager is good, and graphs fail on {blamed} alone: {cause}"
    where = " and ".join(first.pair) if first.pair else blamed
    return Conclusion(f"{gate} gate, {first.code}: {cause}", where, (first.next, *_remediations(hosts)))


def _of_replica(result: GateResult, hosts: Mapping[str, HostFindings]) -> Conclusion:
    where = result.host or " and ".join(result.pair or ()) or "only all hosts together"
    if result.gate == "graph" and result.code in ONLY_GRAPHS_FAIL:
        return Conclusion(
            f"eager is good and graphs fail across hosts ({result.code}), though every host's own graphs are good: "
            f"{result.cause}",
            where,
            (
                "Serve eagerly meanwhile: the engine's ladder does so by itself, or set vllm_server_ladder: [none].",
                *_remediations(hosts),
            ),
        )
    return Conclusion(f"{result.gate} gate, {result.code}: {result.cause}", where, (result.next, *_remediations(hosts)))


def _of_ladder(engine: EngineState, hosts: Mapping[str, HostFindings]) -> Conclusion:
    ladder = engine.ladder
    failed = engine_state.failed(ladder)
    below = [rung for rung in ladder if rung not in failed]
    what = "; ".join(f"rung {rung}: {why}" for rung, why in failed.items())
    good = f"vLLM is good on rung {below[-1]}" if below else "vLLM is good on no rung"
    return Conclusion(
        f"{good} and fails above it: {what}",
        " and ".join(hosts),
        (
            *_remediations(hosts),
            "A rung below serves meanwhile, by itself. A failed rung is tried again when a version changes, or, on the"
            " head, after: PYTHONPATH=/opt/lockstep/lib python3 -m lockstep.engine.cli forget-ladder",
        ),
    )


def _remediations(hosts: Mapping[str, HostFindings]) -> tuple[str, ...]:
    found = {issue.id: issue.remediation for host in hosts.values() for issue in host.issues}
    return tuple(f"{name}: {remediation}" for name, remediation in sorted(found.items()))


def _gates(hosts: Mapping[str, HostFindings], replica: Mapping[str, GateResult]) -> Iterator[str]:
    yield "GATES"
    for name, host in hosts.items():
        yield f"  {name:<12} " + "   ".join(_short(gate, host.gates.get(gate)) for gate in OWN_GATES)
        if host.quarantined is not None:
            yield from _wrapped(f"  {'':<12} quarantined: {host.quarantined}", " " * 15)
    yield f"  {'all together':<12} " + "   ".join(_short(gate, replica.get(gate)) for gate in REPLICA_GATES)


def _short(name: str, result: GateResult | None) -> str:
    if result is None:
        return f"{name} not run"
    return f"{name} pass" if result.passed else f"{name} {result.verdict.upper()} {result.code}"


def _versions(hosts: Mapping[str, HostFindings]) -> Iterator[str]:
    """Versions once where all agree, by host where they differ."""
    yield "VERSIONS"
    known = {name: host.fingerprint for name, host in hosts.items() if host.fingerprint}
    for field in ("driver", "fabric_manager", "nccl", "torch", "vllm", "ray", "python", "kernel"):
        values = {name: fingerprint.get(field) or "none" for name, fingerprint in known.items()}
        if len(set(values.values())) == 1:
            yield f"  {field.replace('_', ' '):<14} {next(iter(values.values()))}"
        elif values:
            yield f"  {field.replace('_', ' '):<14} DIFFERS: " + ", ".join(
                f"{name} {value}" for name, value in values.items()
            )


def _engine(engine: EngineState | None, head: str) -> Iterator[str]:
    if not engine:
        return
    yield ""
    yield "ENGINE"
    yield from _wrapped(f"  {engine.phase} on {head} since {engine.since}: {engine.reason}", "  ")
    if engine.ladder:
        rungs = "; ".join(f"{rung}: {state}" for rung, state in engine.ladder.items())
        yield from _wrapped(f"  ladder: {rungs}", "    ")
    if engine.last_failure:
        yield from _wrapped(f"  last failure: {engine.last_failure}", "    ")


def _issues(hosts: Mapping[str, HostFindings]) -> Iterator[str]:
    found: dict[str, tuple[Match, list[str]]] = {}
    for name, host in hosts.items():
        for issue in host.issues:
            found.setdefault(issue.id, (issue, []))[1].append(name)
    yield ""
    yield "KNOWN ISSUES THAT FIT"
    if not found:
        yield "  none"
    for issue, names in found.values():
        yield from _wrapped(
            f"  {issue.id} ({issue.severity}, {issue.confidence} confidence; on {', '.join(names)}): "
            f"{issue.effect}. {issue.source}",
            "    ",
        )


def _evidence(hosts: Mapping[str, HostFindings], replica: Mapping[str, GateResult]) -> Iterator[str]:
    folders = []
    for name, gates in [*((name, host.gates) for name, host in hosts.items()), ("head", replica)]:
        for evidence in (result.evidence for result in gates.values() if result.evidence):
            folders.append(f"{name}: {evidence[0].rsplit('/', 1)[0]} ({many(len(evidence), 'file')})")
    if folders:
        yield ""
        yield "EVIDENCE"
        for folder in folders:
            yield f"  {folder}"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
