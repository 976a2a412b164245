"""What every replica and host is doing and why, from a survey of all hosts: as data for programs and as text for people.

Pure. A host that did not answer, or whose state lacks a part, is shown as far as it is known, never left out.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.admission import fingerprint
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import state as engine_state

State = Mapping[str, Any]
RAY = "lockstep-ray.service"
ENGINE = "lockstep-vllm.service"
_COLUMNS = ("host", "role", "driver", "stamp", "quarantine", "ray", "gpus", "since", "reason")


def build(survey: Mapping[str, Any]) -> dict[str, Any]:
    """The status of a cluster.

    Args:
        survey: what lockstep.vllm.survey returns with ``ray: true``: ``replicas`` (name to ``head``, ``hosts``,
            ``zone``), ``routers``, and ``hosts`` (name to ``reachable``, ``error``, ``state``).

    Returns:
        ``at``, ``replicas`` (each with its ``hosts``), ``routers``, ``lock`` and ``request`` (of a roll under way);
        docs/status.md lists the keys. Moments are RFC 3339, UTC.
    """
    found = survey.get("hosts") or {}
    replicas = [
        _replica(name, declared, {host: found.get(host) or {} for host in declared.get("hosts") or ()})
        for name, declared in (survey.get("replicas") or {}).items()
    ]
    states = [_state(answer) for answer in found.values()]
    return {
        "at": _moment(max((state["clock"] for state in states if _number(state.get("clock"))), default=None)),
        "replicas": replicas,
        "routers": [_router(host, found.get(host) or {}) for host in survey.get("routers") or ()],
        "lock": next((state["lock"] for state in states if state.get("lock")), None),
        "request": next((state["request"] for state in states if state.get("request")), None),
    }


def _replica(name: str, declared: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    head = str(declared.get("head"))
    state = _state(found.get(head) or {})
    nodes = {node.get("host"): node for node in _part(state, "ray").get("nodes") or [] if node.get("alive")}
    alike = _part(state, "host").get("gpus")  # hosts of a replica are alike: what one that is away would declare
    hosts = [_host(host, host == head, answer, nodes, _knows_ray(state), alike) for host, answer in found.items()]
    engine = _part(state, "engine")
    unit = _unit(state, ENGINE).get("active")
    running = unit in ("active", "activating", "reloading")
    told = running or (unit == "failed" and engine.get("phase") == "given_up")
    serving = running and engine.get("phase") == "serving" and engine.get("ready", True)
    return {
        "replica": name,
        "zone": declared.get("zone"),
        "head": head,
        "serving": bool(serving),
        "engine": str(engine.get("phase") or "unknown") if told else _down(found.get(head) or {}, ENGINE),
        "layout": engine.get("layout"),
        "tensor_parallel_size": engine.get("tensor_parallel_size"),
        "pipeline_parallel_size": engine.get("pipeline_parallel_size"),
        "rung": engine.get("rung"),
        "since": engine.get("since") if told else _moment(_unit(state, ENGINE).get("since")),
        "last_completion": engine.get("last_completion"),
        "restarts": engine.get("restarts"),
        "stamp": _replica_stamp(state, found),
        "gpus": {key: _total(hosts, key) for key in ("total", "used", "missing")},
        "reason": _replica_reason(bool(serving), engine, hosts, found.get(head) or {}),
        "advice": engine_state.advice(engine),
        "hosts": hosts,
    }


def _host(
    host: str,
    is_head: bool,
    answer: Mapping[str, Any],
    nodes: Mapping[Any, Mapping[str, Any]],
    ray_known: bool,
    alike: Any,
) -> dict[str, Any]:
    state = _state(answer)
    driver = _part(state, "driver")
    quarantine = state.get("quarantine")
    node = nodes.get(host)
    declared: Any = _part(state, "host").get("gpus", alike)
    joined = int(node.get("gpus") or 0) if node else 0
    free = float(node.get("gpus_free") or 0) if node else 0.0
    return {
        "host": host,
        "role": "head" if is_head else "worker",
        "reachable": bool(answer.get("state")),
        "driver": driver.get("loaded_version") or driver.get("package_version"),
        "driver_problem": _driver_problem(driver),
        "stamp": _host_stamp(state),
        "quarantine": dict(quarantine) if quarantine else None,
        "ray": _ray(answer, node, ray_known),
        "gpus": {
            "declared": declared,
            "total": joined if ray_known else None,
            "used": joined - free if ray_known else None,
            "missing": max(declared - joined, 0) if ray_known and _number(declared) else None,
        },
        "since": (quarantine or {}).get("at") or _moment(_unit(state, RAY).get("since")),
        "reason": _host_reason(answer, node, ray_known),
    }


def _router(host: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    unit = _unit(_state(answer), "haproxy.service")
    down = "not running" if answer.get("state") else str(answer.get("error") or "did not answer")
    return {
        "host": host,
        "running": unit.get("active") == "active",
        "since": _moment(unit.get("since")),
        "reason": "" if unit.get("active") == "active" else down,
    }


def _host_stamp(state: State) -> str:
    """``valid``, ``none``, or ``void: `` and what changed; ``unknown`` where the host did not tell."""
    if "stamps" not in state:
        return "unknown"
    stamp = _part(state, "stamps").get("host")
    if not stamp:
        return "none"
    if stamp.get("error"):
        return f"void: {stamp['error']}"
    changed = fingerprint.changes(stamp.get("fingerprint") or {}, _part(state, "fingerprint"))
    return f"void: {', '.join(changed)}" if changed else "valid"


def _replica_stamp(head: State, found: Mapping[str, Mapping[str, Any]]) -> str:
    if "stamps" not in head:
        return "unknown"
    stamp = _part(head, "stamps").get("replica")
    if not stamp:
        return "none"
    if stamp.get("error"):
        return f"void: {stamp['error']}"
    stamped = stamp.get("hosts") or {}
    if set(stamped) != set(found):
        return f"void: given for {', '.join(sorted(stamped)) or 'nobody'}"
    differ = [
        host for host, answer in found.items() if _state(answer).get("fingerprint_digest") not in (None, stamped[host])
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
    return str(driver.get("smi_error") or "")


def _ray(answer: Mapping[str, Any], node: Mapping[str, Any] | None, ray_known: bool) -> str:
    if node is not None:
        return "draining" if node.get("draining") else "joined"
    down = _down(answer, RAY)
    return ("not joined" if ray_known else "running") if down == "active" else down


def _down(answer: Mapping[str, Any], unit: str) -> str:
    """What keeps a unit from running, in a word or two."""
    if not answer.get("state"):
        return "unreachable" if answer.get("reachable") is False else "unknown"
    known = _unit(_state(answer), unit)
    if known.get("result") == "exec-condition" and known.get("active") != "active":
        return "not admitted"
    return str(known.get("active") or "unknown")


def _host_reason(answer: Mapping[str, Any], node: Mapping[str, Any] | None, ray_known: bool) -> str:
    state = _state(answer)
    if not answer.get("state"):
        return str(answer.get("error") or "did not answer")
    quarantine = state.get("quarantine")
    if quarantine:
        owner = f" (by {quarantine['owner']})" if quarantine.get("owner") else ""
        return f"quarantine: {quarantine.get('reason') or quarantine.get('error')}{owner}"
    problem = _driver_problem(_part(state, "driver"))
    if problem:
        return f"driver: {problem}"
    stamp = _host_stamp(state)
    if stamp not in ("valid", "unknown"):
        return "no host stamp: its gates have not passed" if stamp == "none" else f"host stamp {stamp}"
    if node is None and _unit(state, RAY).get("active") == "active" and ray_known:
        return "Ray runs here, but the head does not count this host"
    unit = _unit(state, RAY)
    if node is None and unit.get("active") != "active":
        return f"Ray is {unit.get('active') or 'not installed'} ({unit.get('result') or 'no result'})"
    return ""


def _replica_reason(
    serving: bool, engine: Mapping[str, Any], hosts: Sequence[Mapping[str, Any]], head: Mapping[str, Any]
) -> str:
    if serving:
        return str(engine.get("reason") or "")
    if engine.get("error"):
        return str(engine["error"])
    reason, failure = str(engine.get("reason") or ""), str(engine.get("last_failure") or "")
    if reason or failure:
        return reason if failure in reason else "; ".join(part for part in (reason, failure) if part)
    return _blamed(hosts) or f"the engine is {_down(head, ENGINE)}"


def _blamed(hosts: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{host['host']}: {host['reason']}" for host in hosts if host["reason"])


def _knows_ray(head: State) -> bool:
    return _part(head, "ray").get("head") == "up" or bool(_part(head, "ray").get("nodes"))


def _state(answer: Mapping[str, Any]) -> State:
    return answer.get("state") or {}


def _part(state: State, name: str) -> Mapping[str, Any]:
    part = state.get(name)
    return part if isinstance(part, Mapping) else {}


def _unit(state: State, name: str) -> Mapping[str, Any]:
    return _part(_part(state, "units"), name)


def _total(hosts: Sequence[Mapping[str, Any]], key: str) -> float | None:
    known = [host["gpus"][key] for host in hosts if host["gpus"][key] is not None]
    return sum(known) if known else None


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _moment(seconds: Any) -> str | None:
    try:
        moment = datetime.datetime.fromtimestamp(float(seconds), datetime.UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def as_json(status: Mapping[str, Any]) -> str:
    """For programs: one JSON object that begins and ends with a brace alone in the first column."""
    return json.dumps(status, indent=1, ensure_ascii=False)


def as_text(status: Mapping[str, Any]) -> str:
    """For people: a line and a table per replica."""
    at = status.get("at")
    blocks = [_replica_text(replica, at) for replica in status["replicas"]]
    routers = [
        f"{router['host']}: {'running' if router['running'] else router['reason']}{_for(router['since'], at)}"
        for router in status["routers"]
    ]
    if routers:
        blocks.append("\n".join(["routers", *(f"  {line}" for line in routers)]))
    lock, request = status.get("lock"), status.get("request")
    if lock:
        blocks.append(
            f"a roll is under way: run {lock.get('run')} of {lock.get('holder')}{_for(lock.get('since'), at)}"
        )
    if request:
        blocks.append(
            f"asked of the roll: {request.get('action')}, by {request.get('by')}: {request.get('reason') or '–'}"
        )
    return "\n\n".join(blocks) or "the inventory has no replicas"


def _replica_text(replica: Mapping[str, Any], at: str | None) -> str:
    facts = [f"{replica['engine']}{_for(replica['since'], at)}"]
    if replica["tensor_parallel_size"]:
        sizes = f"TP{replica['tensor_parallel_size']}×PP{replica['pipeline_parallel_size'] or 1}"
        facts.append(f"layout {replica['layout'] or sizes} ({sizes})" if replica["layout"] != sizes else sizes)
    if replica["rung"]:
        facts.append(f"rung {replica['rung']}")
    if replica["gpus"]["total"] is not None:
        facts.append(f"GPUs {_gpus(replica['gpus'])}")
    if replica["stamp"] != "valid":
        facts.append(f"replica stamp {replica['stamp']}")
    mark = "serving" if replica["serving"] else "NOT SERVING"
    lines = [f"{replica['replica']}: {mark} · {' · '.join(facts)}"]
    already = (_blamed(replica["hosts"]), f"layout {replica['layout']}, rung {replica['rung']}")
    if replica["reason"] and replica["reason"] not in already:
        lines.append(f"  {replica['reason']}")
    lines += [f"  advice: {text}" for text in replica["advice"]]
    return "\n".join([*lines, *_grid([_cells(host, at) for host in replica["hosts"]])])


def _cells(host: Mapping[str, Any], at: str | None) -> list[str]:
    return [
        host["host"],
        host["role"],
        str(host["driver"] or "–"),
        host["stamp"].split(":")[0],
        "–" if not host["quarantine"] else str(host["quarantine"].get("kind") or "yes"),
        host["ray"],
        _gpus(host["gpus"]),
        _for(host["since"], at).removeprefix(" for ") or "–",
        host["reason"],
    ]


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    table = [list(_COLUMNS), *rows]
    widths = [max(len(row[n]) for row in table) for n in range(len(_COLUMNS))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    ]


def _gpus(gpus: Mapping[str, Any]) -> str:
    if gpus["total"] is None:
        return "–"
    missing = f", {gpus['missing']:g} missing" if gpus["missing"] else ""
    return f"{gpus['used']:g} of {gpus['total']:g} used{missing}"


def _for(since: Any, at: str | None) -> str:
    try:
        then = datetime.datetime.fromisoformat(str(since))
        seconds = (datetime.datetime.fromisoformat(str(at)) - then).total_seconds()
    except (ValueError, TypeError):
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f" for {int(seconds // size)} {unit}"
    return f" for {max(int(seconds), 0)} s"
