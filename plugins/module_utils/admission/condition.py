"""May this host join Ray, may this replica's engine start? The host answers by itself, with no controller running.

``python3 -m lockstep.admission.condition host`` and ``… replica`` are the ``ExecCondition`` of the Ray and vLLM units: exit
status 0 lets the unit start; 1 leaves it out, and the reason stands in the unit's journal.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, Literal

from ..core import records
from . import fingerprint

Kind = Literal["host", "replica"]
_NEXT = "Next: ansible-playbook site.yml"


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether a unit may start, and why or why not, in words for the journal."""

    allowed: bool
    reason: str


def may_start(
    kind: Kind,
    host: str,
    quarantine: Mapping[str, Any] | None,
    stamp: Mapping[str, Any] | None,
    now: Mapping[str, str | None],
) -> Decision:
    """Decide from the records of this host and its fingerprint as it is now.

    Args:
        kind: which stamp is asked for; ``replica`` is asked on the head only.
        host: this host's inventory name.
        quarantine: the quarantine record, if there is one.
        stamp: the stamp of that kind, if there is one.
        now: this host's present fingerprint.
    """
    if quarantine is not None:
        return Decision(
            False,
            f"{host} is in quarantine since {quarantine.get('at')}: {quarantine.get('reason')} "
            f"(by {quarantine.get('owner')}, run {quarantine.get('run')}). Next: ansible-playbook playbooks/status.yml",
        )
    if stamp is None:
        return Decision(False, f"{host} has no {kind} stamp: its gates have not passed. {_NEXT}")
    if kind == "host":
        changed = fingerprint.changes(stamp.get("fingerprint", {}), now)
        if changed:
            return Decision(
                False, f"{host}: the host stamp of {stamp.get('at')} is void: {', '.join(changed)}. {_NEXT}"
            )
        return Decision(True, f"{host}: host stamp of {stamp.get('at')} is valid")
    stamped, present = stamp.get("hosts", {}).get(host), fingerprint.digest(now)
    if stamped != present:
        return Decision(
            False,
            f"{host}: the replica stamp of {stamp.get('at')} is void: it was given for fingerprint {stamped} of this "
            f"host, which now has {present}. {_NEXT}",
        )
    return Decision(True, f"{host}: replica stamp of {stamp.get('at')} is valid for this host")


def strangers(stamp: Mapping[str, Any], joined: Mapping[str, str]) -> list[str]:
    """Why the hosts that joined Ray are not those that the replica stamp was given for; empty when they are.

    Args:
        stamp: the replica stamp.
        joined: host name to fingerprint digest, from the labels of the live Ray nodes.
    """
    stamped = stamp.get("hosts", {})
    found = [
        f"{host} joined with fingerprint {digest}, the replica stamp was given for {stamped[host]}"
        for host, digest in sorted(joined.items())
        if host in stamped and stamped[host] != digest
    ]
    return found + [
        f"{host} joined, but the replica stamp does not cover it" for host in sorted(set(joined) - set(stamped))
    ]


def decide_here(kind: Kind) -> Decision:
    """The decision for the host that this runs on. A record that cannot be read refuses."""
    try:
        host = (records.read(records.HOST) or {}).get("host", "this host")
        stamp = records.read(records.HOST_STAMP if kind == "host" else records.REPLICA_STAMP)
        return may_start(kind, host, records.read(records.QUARANTINE), stamp, fingerprint.current())
    except records.RecordError as error:
        return Decision(False, f"a record is damaged, and a damaged record admits nobody: {error}")


def main(arguments: list[str]) -> int:
    if arguments not in (["host"], ["replica"]):
        print("usage: python3 -m lockstep.admission.condition host|replica", file=sys.stderr)
        return 255
    decision = decide_here("host" if arguments == ["host"] else "replica")
    print(("admitted: " if decision.allowed else "refused: ") + decision.reason, flush=True)
    return 0 if decision.allowed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
