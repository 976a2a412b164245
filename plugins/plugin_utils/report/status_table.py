"""The status of a cluster as text: a table for people, JSON for programs."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence

from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import names
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import tunnel_status
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.cluster_status import host_reasons
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.status_types import (
    Gpus,
    HostStatus,
    ReplicaStatus,
    Status,
    UnexpectedStatus,
)

_COLUMNS = ("host", "role", "driver", "stamp", "quarantine", "ray", "gpus", "since", "reason")


def as_json(status: Status) -> str:
    """For programs: one JSON object that begins and ends with a brace alone in the first column."""
    return json.dumps(status, indent=1, ensure_ascii=False)


def as_text(status: Status) -> str:
    """For people: a line and a table per replica."""
    at = status["at"]
    blocks = [_replica_text(replica, at) for replica in status["replicas"]]
    routers = [
        f"{router['host']}: {'running' if router['running'] else router['reason']}{_for(router['since'], at)}"
        for router in status["routers"]
    ]
    if routers:
        blocks.append("\n".join(["routers", *(f"  {line}" for line in routers)]))
    if status["unexpected"]:
        blocks.append("\n".join(["unexpected", *map(_unexpected_text, status["unexpected"])]))
    if status["unanswered"]:
        blocks.append(f"in no replica, and no answer: {names(status['unanswered'])}")
    lock, request = status["lock"], status["request"]
    if lock:
        blocks.append(
            f"a rollout is under way: run {lock.get('run')} of {lock.get('holder')}{_for(lock.get('since'), at)}"
        )
    if request:
        blocks.append(
            f"requested of the rollout: {request.get('action')}, by {request.get('by')}: {request.get('reason') or '–'}"
        )
    return "\n\n".join(blocks) or "the inventory has no replicas"


def _unexpected_text(found: UnexpectedStatus) -> str:
    following = f"\n    next: {found['next']}" if found["next"] else ""
    return f"  {found['cause']}{following}"


def _replica_text(replica: ReplicaStatus, at: str | None) -> str:
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
    already = (host_reasons(replica["hosts"]), f"layout {replica['layout']}, rung {replica['rung']}")
    if replica["reason"] and replica["reason"] not in already:
        lines.append(f"  {replica['reason']}")
    tunnel = tunnel_status.line(replica["hosts"])
    lines += [f"  {tunnel}"] if tunnel else []
    lines += [f"  advice: {text}" for text in replica["advice"]]
    return "\n".join([*lines, *_grid([_cells(host, at) for host in replica["hosts"]])])


def _cells(host: HostStatus, at: str | None) -> list[str]:
    return [
        host["host"],
        host["role"],
        str(host["driver"] or "–"),
        host["stamp"].split(":")[0],
        "–" if not host["quarantine"] else str(host["quarantine"].get("kind") or "yes"),
        host["ray"],
        _gpus(host["gpus"]),
        _for(host["since"], at).removeprefix(" for ") or "–",
        " ".join(host["reason"].split()),
    ]


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    table = [list(_COLUMNS), *rows]
    widths = [max(len(row[n]) for row in table) for n in range(len(_COLUMNS))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    ]


def _gpus(gpus: Gpus) -> str:
    if gpus["total"] is None:
        return "–"
    missing = f", {gpus['missing']:g} missing" if gpus["missing"] else ""
    return f"{gpus['used']:g} of {gpus['total']:g} used{missing}"


def _for(since: str | None, at: str | None) -> str:
    try:
        then = datetime.datetime.fromisoformat(str(since))
        seconds = (datetime.datetime.fromisoformat(str(at)) - then).total_seconds()
    except (ValueError, TypeError):
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f" for {int(seconds // size)} {unit}"
    return f" for {max(int(seconds), 0)} s"
