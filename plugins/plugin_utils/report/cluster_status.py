"""What every replica and host does and why, from a probe of all hosts, as data: what lockstep.vllm.status returns.

Pure. A host that did not answer, or whose state lacks a part, is there as far as it is known, never left out.
"""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from ansible_collections.lockstep.vllm.plugins.module_utils.admission import fingerprint
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.core.systemd import RUNNING
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import known_issues
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import state as engine_state
from ansible_collections.lockstep.vllm.plugins.module_utils.host import running_issues
from ansible_collections.lockstep.vllm.plugins.module_utils.host.state import HostState, Record
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import gcs
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.unexpected import Unexpected
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import tunnel_status
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.status_types import (
    Answer,
    Declared,
    HostGpus,
    HostStatus,
    Probe,
    ReplicaStatus,
    RouterStatus,
    Status,
    SuspectStatus,
)

Nodes = Mapping[str | None, gcs.NodeSummary]
RAY = "lockstep-ray.service"
ENGINE = "lockstep-vllm.service"
HAPROXY = "haproxy.service"


def build(
    probe: Probe,
    issues: Sequence[known_issues.Issue] = (),
    found: Iterable[Unexpected] = (),
    unanswered: Iterable[str] = (),
) -> Status:
    """The status of a cluster. Moments are RFC 3339, UTC.

    Args:
        probe: what the hosts of replicas and the routers answered.
        issues: rows of data/known_issues.yml.
        found: what runs and is not wanted.
        unanswered: other hosts that were asked whether anything of ours runs there, and did not answer.
    """
    answers = probe.get("hosts") or {}
    states = [_state(answer) for answer in answers.values()]
    return {
        "at": _moment(_middle([clock for state in states if isinstance(clock := state.get("clock"), float)])),
        "replicas": [
            _replica(name, declared, {host: answers.get(host) or {} for host in declared.get("hosts") or ()}, issues)
            for name, declared in (probe.get("replicas") or {}).items()
        ],
        "routers": [_router(host, answers.get(host) or {}) for host in probe.get("routers") or ()],
        "unexpected": [as_json(each) for each in found],
        "unanswered": list(unanswered),
        "lock": next((state["lock"] for state in states if state.get("lock")), None),
        "request": next((state["request"] for state in states if state.get("request")), None),
    }


def host_reasons(hosts: Iterable[HostStatus]) -> str:
    """Why hosts of a replica are not as they should be; empty where all are."""
    return "; ".join(f"{host['host']}: {host['reason']}" for host in hosts if host["reason"])


def _replica(
    name: str, declared: Declared, answers: Mapping[str, Answer], issues: Sequence[known_issues.Issue]
) -> ReplicaStatus:
    head = str(declared.get("head"))
    answer = answers.get(head) or {}
    state = _state(answer)
    nodes = _nodes(state)
    alike = (state.get("host") or {}).get("gpus")  # hosts of a replica are alike: what one that is away would declare
    hosts = [_host(host, head, each, nodes, alike) for host, each in answers.items()]
    engine = state.get("engine") or {}
    unit = _unit(state, ENGINE).get("active")
    running = unit in RUNNING
    reported = running or (unit == "failed" and engine.get("phase") == "given_up")
    serving = running and engine.get("phase") == "serving" and engine.get("ready", True)
    return {
        "replica": name,
        "zone": declared.get("zone"),
        "head": head,
        "serving": serving,
        "engine": engine.get("phase") or "unknown" if reported else _down(answer, ENGINE),
        "layout": engine.get("layout"),
        "tensor_parallel_size": engine.get("tensor_parallel_size"),
        "pipeline_parallel_size": engine.get("pipeline_parallel_size"),
        "rung": engine.get("rung"),
        "since": engine.get("since") if reported else _moment(_unit(state, ENGINE).get("since")),
        "last_completion": engine.get("last_completion"),
        "restarts": engine.get("restarts"),
        "stamp": _replica_stamp(state, answers),
        "gpus": {
            "total": _total(host["gpus"]["total"] for host in hosts),
            "used": _total(host["gpus"]["used"] for host in hosts),
            "missing": _total(host["gpus"]["missing"] for host in hosts),
        },
        "reason": _replica_reason(serving, engine, hosts, answer),
        "suspect": _suspect(engine.get("suspect")),
        "advice": [*engine_state.advice(engine), *_time_bombs(answers, issues)],
        "hosts": hosts,
    }


def _time_bombs(answers: Mapping[str, Answer], issues: Sequence[known_issues.Issue]) -> Iterator[str]:
    """What comes with the uptime of a host, by host: said before it does."""
    for host, answer in answers.items():
        for bomb in running_issues.time_bombs(_state(answer), issues):
            yield f"{host}: {bomb}"


def _suspect(found: Record | None) -> SuspectStatus | None:
    if not found:
        return None
    return {
        "code": found["code"],
        "reason": found["reason"],
        "where": [
            {"host": each["host"], "rank": each.get("rank"), "pid": each.get("pid")}
            for each in found.get("where") or ()
        ],
        "evidence": list(found.get("evidence") or ()),
    }


def _host(host: str, head: str, answer: Answer, nodes: Nodes | None, alike: int | None) -> HostStatus:
    """``nodes`` are those that Ray has, None where its head did not report them."""
    state = _state(answer)
    driver = _driver(state)
    quarantine = state.get("quarantine") or None
    return {
        "host": host,
        "role": "head" if host == head else "worker",
        "reachable": bool(answer.get("state")),
        "driver": driver.get("loaded_version") or driver.get("package_version"),
        "driver_problem": _driver_problem(driver),
        "stamp": _host_stamp(state),
        "filter": tunnel_status.wanted_or_not(state.get("filter") or {}),
        "tunnel": tunnel_status.wanted_or_not(state.get("tunnel") or {}),
        "tunnel_handshakes": tunnel_status.ages(state),
        "quarantine": quarantine,
        "ray": _ray(answer, host, nodes),
        "gpus": _gpus((state.get("host") or {}).get("gpus", alike), host, nodes),
        "since": (quarantine or {}).get("at") or _moment(_unit(state, RAY).get("since")),
        "reason": _host_reason(answer, host, head, nodes),
    }


def _gpus(declared: int | None, host: str, nodes: Nodes | None) -> HostGpus:
    if nodes is None:
        return {"declared": declared, "total": None, "used": None, "missing": None}
    node = nodes.get(host)
    joined = int((node and node.get("gpus")) or 0)
    return {
        "declared": declared,
        "total": joined,
        "used": joined - float((node and node.get("gpus_free")) or 0),
        "missing": None if declared is None else max(declared - joined, 0),
    }


def _router(host: str, answer: Answer) -> RouterStatus:
    unit = _unit(_state(answer), HAPROXY)
    running = unit.get("active") == "active"
    down = "not running" if answer.get("state") else answer.get("error") or "did not answer"
    return {"host": host, "running": running, "since": _moment(unit.get("since")), "reason": "" if running else down}


def _host_stamp(state: HostState) -> str:
    """``valid``, ``none``, or ``void: `` and what changed; ``unknown`` where the host did not report it."""
    if "stamps" not in state:
        return "unknown"
    stamp = (state["stamps"] or {}).get("host")
    if not stamp:
        return "none"
    if stamp.get("error"):
        return f"void: {stamp['error']}"
    changed = fingerprint.changes(stamp.get("fingerprint") or {}, state.get("fingerprint") or {})
    return f"void: {', '.join(changed)}" if changed else "valid"


def _replica_stamp(head: HostState, answers: Mapping[str, Answer]) -> str:
    if "stamps" not in head:
        return "unknown"
    stamp = (head["stamps"] or {}).get("replica")
    if not stamp:
        return "none"
    if stamp.get("error"):
        return f"void: {stamp['error']}"
    stamped = stamp.get("hosts") or {}
    if set(stamped) != set(answers):
        return f"void: given for {', '.join(sorted(stamped)) or 'no host'}"
    differ = [
        host for host, each in answers.items() if _state(each).get("fingerprint_digest") not in (None, stamped[host])
    ]
    return f"void: {', '.join(differ)} changed since" if differ else "valid"


def _driver_problem(driver: Mapping[str, Any]) -> str:
    if driver.get("error"):
        return str(driver["error"])
    package, loaded = driver.get("package_version"), driver.get("loaded_version")
    if package and loaded and package != loaded:
        return f"{loaded} is loaded, {package} is installed"
    if package and not loaded and "loaded_version" in driver:
        return f"{package} is installed, none is loaded"
    return str((driver.get("smi_failure") or {}).get("text") or "")


def _ray(answer: Answer, host: str, nodes: Nodes | None) -> str:
    if nodes is not None and host in nodes:
        return "draining" if nodes[host].get("draining") else "joined"
    down = _down(answer, RAY)
    return ("running" if nodes is None else "not joined") if down == "active" else down


def _down(answer: Answer, unit: str) -> str:
    """What keeps a unit from running, in brief."""
    if not answer.get("state"):
        return "unreachable" if answer.get("reachable") is False else "unknown"
    known = _unit(_state(answer), unit)
    if known.get("result") == "exec-condition" and known.get("active") != "active":
        return "not admitted"
    return str(known.get("active") or "unknown")


def _host_reason(answer: Answer, host: str, head: str, nodes: Nodes | None) -> str:
    state = _state(answer)
    if not answer.get("state"):
        return answer.get("error") or "did not answer"
    quarantine = state.get("quarantine")
    if quarantine:
        owner = f" (by {quarantine['owner']})" if quarantine.get("owner") else ""
        return f"quarantine: {quarantine.get('reason') or quarantine.get('error')}{owner}"
    problem = _driver_problem(_driver(state))
    if problem:
        return f"driver: {problem}"
    stamp = _host_stamp(state)
    if stamp not in ("valid", "unknown"):
        return "no host stamp: its gates have not passed" if stamp == "none" else f"host stamp {stamp}"
    for part, said in (("packet filter", state.get("filter")), ("tunnel", state.get("tunnel"))):
        found = tunnel_status.wanted_or_not(said or {})
        if found.startswith("wrong"):
            return f"{part} {found}"
    if nodes is not None and host in nodes:
        return ""
    unit = _unit(state, RAY)
    if unit.get("active") != "active":
        return f"Ray is {unit.get('active') or 'not installed'} ({unit.get('result') or 'no result'})"
    if nodes is None:
        return ""
    silent = tunnel_status.silence(state, head)
    return f"Ray runs here, but this host is not among the head's nodes{f' ({silent})' if silent else ''}"


def _replica_reason(serving: bool, engine: Record, hosts: Sequence[HostStatus], head: Answer) -> str:
    reason, failure = engine.get("reason") or "", engine.get("last_failure") or ""
    if serving:
        return reason
    if engine.get("error"):
        return str(engine["error"])
    if reason or failure:
        return reason if failure in reason else "; ".join(part for part in (reason, failure) if part)
    return host_reasons(hosts) or f"the engine is {_down(head, ENGINE)}"


def _nodes(state: HostState) -> Nodes | None:
    ray = cast(gcs.Summary, state.get("ray") or {})
    nodes = ray.get("nodes") or []
    return {node["host"]: node for node in nodes if node.get("alive")} if ray.get("head") == "up" or nodes else None


def _state(answer: Answer) -> HostState:
    return cast(HostState, answer.get("state") or {})


def _driver(state: HostState) -> Mapping[str, Any]:
    return state.get("driver") or {}


def _unit(state: HostState, name: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Mapping[str, Any]]", state.get("units") or {}).get(name) or {}


def _total(counts: Iterable[float | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _middle(clocks: Sequence[float]) -> float | None:
    """The hosts' clock that as many are behind as ahead of: no single one moves it far."""
    return statistics.median_high(clocks) if clocks else None


def _moment(seconds: float | str | None) -> str | None:
    """Unix seconds, which systemd gives as text."""
    try:
        moment = datetime.datetime.fromtimestamp(float(seconds or "nan"), datetime.UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
