"""How a wave went: over the members that were planned, never over those that happen to be left."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any


def sizes(waves: Sequence[int]) -> list[int]:
    """Sizes of the runs of equal wave numbers, in order; ``[1]`` for none, which ``serial`` wants for an empty play."""
    return [len(list(group)) for _wave, group in itertools.groupby(waves)] or [1]


def trouble(
    members: Sequence[str], batch: Collection[str], kept: Mapping[str, Mapping[str, Any] | None]
) -> list[dict[str, Any]]:
    """One row per member in trouble: ``host``, ``stage``, ``task``, ``msg``.

    Args:
        members: the wave's hosts as planned.
        batch: hosts that Ansible still speaks to; one that became unreachable is missing from it.
        kept: what each host's own failure was, if it failed.
    """
    rows: list[dict[str, Any]] = []
    for host in members:
        failure = kept.get(host)
        if failure:
            rows.append({"host": host, **failure})
        elif host not in batch:
            rows.append({"host": host, "stage": "unknown", "task": "", "msg": "it became unreachable"})
    return rows


def failure(result: Mapping[str, Any], stage: str, task: str) -> dict[str, str]:
    """What a host keeps of its failed task. New strings throughout: what a message quotes is never a template again."""
    message = result.get("msg") or result.get("module_stderr") or "it gave no message"
    return {"stage": f"{stage}", "task": f"{task}", "msg": f"{message}".replace("{{", "{ {").replace("{%", "{ %")}


def reasons(first: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    """Why a host stays in quarantine: how its wave failed, and how putting it back did, where either touched it."""
    told = [f"{failure['stage']}: {failure['msg']}" for failure in (first, then) if failure]
    return "; then ".join(told) or "its wave failed"


def verdict(rows: Sequence[Mapping[str, Any]], wave: int, total: int, replica: str) -> str:
    """The last words of a run whose wave failed: causes, hosts, and the next command to type."""
    causes = "\n".join(f"  - {row['host']}, stage {row['stage']}: {row['msg']}" for row in rows)
    return (
        f"Wave {wave} of {total} failed; no further wave begins.\n{causes}\n"
        f"Next: ansible-playbook playbooks/diagnose.yml --limit {replica}"
    )
