"""How a wave went: over the members that were planned, never over those that happen to be left."""

from __future__ import annotations

import itertools
import os.path
from collections.abc import Collection, Mapping, Sequence
from typing import Any

UNTOLD = "putting back, rejoin"
"""The stage that fails where the replica serves again and a router could not be told."""
DONE_ALONE = frozenset({"take_out", "restore", "verify_hosts"})


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


def failure(result: Mapping[str, Any], stage: str, task: str) -> dict[str, Any]:
    """What a host keeps of its failed task. New strings throughout: what a message quotes is never a template again."""
    message = result.get("msg") or result.get("module_stderr") or "it gave no message"
    evidence = result.get("evidence") or (result.get("gate") or {}).get("evidence") or []
    return {
        "stage": f"{stage}",
        "task": f"{task}",
        "msg": f"{message}".replace("{{", "{ {").replace("{%", "{ %"),
        "evidence": [f"{path}" for path in ([evidence] if isinstance(evidence, str) else evidence)],
    }


def goes_on_putting_back(stage: str, itself: bool, mates: Collection[str]) -> bool:
    """Whether a host takes part in a ``stage`` of putting its wave back.

    What a host does by itself it does whatever became of the others: the driver is restored wherever that can be done.
    What the hosts of a replica do together would only wait for one that is in trouble, to its whole deadline.

    Args:
        stage: the stage's name.
        itself: whether putting this host back has failed already.
        mates: hosts of its replica that have failed so, or cannot be reached.
    """
    return not itself and (stage in DONE_ALONE or not mates)


def reasons(first: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    """Why a host stays in quarantine: how its wave failed, and how putting it back did, where either touched it."""
    told = [f"{failure['stage']}: {failure['msg']}" for failure in (first, then) if failure]
    return "; then ".join(told) or "its wave failed"


def verdict(
    rows: Sequence[Mapping[str, Any]],
    left: Sequence[Mapping[str, Any]],
    back: Mapping[str, str],
    where: tuple[int, int],
    replica: str,
    folder: str = "",
) -> str:
    """The last words of a run whose wave failed: causes, hosts, evidence, what became of it, the next command to type.

    Args:
        rows: the wave's trouble.
        left: the trouble of putting it back.
        back: driver that each host was to be put back to; without those that had nothing to go back to.
        where: number of the wave, and of all.
        replica: whose hosts are to be looked at next.
        folder: where the run's report and evidence lie on the controller.
    """
    lines = [f"Wave {where[0]} of {where[1]} failed; no further wave begins."]
    for row in rows:
        lines.append(f"  - {row['host']}, stage {row['stage']}: {row['msg']}")
        named = sorted({os.path.dirname(path) for path in row.get("evidence", ())})
        lines += [f"    evidence: {row['host']}:{path}" for path in named]
    untold = bool(left) and all(row["stage"] == UNTOLD for row in left)
    if left:
        lines.append(
            "It was put back, passed its gates again and serves, but its router was not told; the next run does that:"
            if untold
            else "It could not be put back; what is not trusted stays in quarantine:"
        )
        lines += [f"  - {row['host']}, stage {row['stage']}: {row['msg']}" for row in left]
    elif back:
        told = ", ".join(f"{host} on {version}" for host, version in sorted(back.items()))
        lines.append(f"It was put back, passed its gates again and serves: {told}.")
    lines += [f"Report and evidence: {folder}"] if folder else []
    if back and (untold or not left):
        lines.append(
            "Next: ansible-playbook playbooks/upgrade_driver.yml -e nvidia_driver_version=… (another version, or this one "
            "once the cause is mended)"
        )
    else:
        lines.append(f"Next: ansible-playbook playbooks/diagnose.yml --limit {replica}")
    return "\n".join(lines)
