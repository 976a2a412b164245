"""May this host join Ray, may this replica's engine start? The host answers by itself, with no controller running.

``python3 -m lockstep.admission.condition host`` and ``… replica`` are the ``ExecCondition`` of the Ray and vLLM units: exit
status 0 lets the unit start; 1 leaves it out, and the reason stands in the unit's journal.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping

from ..core import host_record, records
from ..core.stop import Stop
from . import fingerprint, quarantine, stamps
from .quarantine import Quarantine
from .stamps import HostStamp, Kind, ReplicaStamp

_NEXT = "ansible-playbook site.yml"


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether a unit may start, and why or why not.

    Attributes:
        next: the next command to type; empty where it may start, or none is known.
    """

    allowed: bool
    cause: str
    next: str = ""

    @property
    def reason(self) -> str:
        """All of it, for the journal."""
        return str(Stop(self.cause, self.next))


def may_start_ray(
    host: str, isolation: Quarantine | None, stamp: HostStamp | None, now: Mapping[str, str | None]
) -> Decision:
    """Whether Ray may start on this host.

    Args:
        host: this host's inventory name.
        isolation: the quarantine record, if there is one.
        stamp: the host stamp, if there is one.
        now: this host's present fingerprint.
    """
    if refusal := _refusal("host", host, isolation, stamp):
        return refusal
    assert stamp is not None
    changed = fingerprint.changes(stamp["fingerprint"], now)
    if changed:
        return Decision(False, f"{host}: the host stamp of {stamp['at']} is void: {', '.join(changed)}", _NEXT)
    return Decision(True, f"{host}: host stamp of {stamp['at']} is valid")


def may_start_engine(
    host: str, isolation: Quarantine | None, stamp: ReplicaStamp | None, now: Mapping[str, str | None]
) -> Decision:
    """Whether vLLM may start on this head; arguments as for ``may_start_ray``, with the replica stamp."""
    if refusal := _refusal("replica", host, isolation, stamp):
        return refusal
    assert stamp is not None
    stamped, present = stamp["hosts"].get(host), fingerprint.digest(now)
    if stamped != present:
        return Decision(
            False,
            f"{host}: the replica stamp of {stamp['at']} is void: it was given for fingerprint {stamped} of this "
            f"host, which now has {present}",
            _NEXT,
        )
    return Decision(True, f"{host}: replica stamp of {stamp['at']} is valid for this host")


def _refusal(
    kind: Kind, host: str, isolation: Quarantine | None, stamp: HostStamp | ReplicaStamp | None
) -> Decision | None:
    if isolation is not None:
        return Decision(
            False,
            f"{host} is in quarantine since {isolation.at}: {isolation.reason} "
            f"(by {isolation.owner}, run {isolation.run})",
            "ansible-playbook playbooks/status.yml",
        )
    if stamp is None:
        return Decision(False, f"{host} has no {kind} stamp: its gates have not passed", _NEXT)
    return None


def unexpected_hosts(stamped: Mapping[str, str], joined: Mapping[str, str]) -> list[str]:
    """Why the hosts that joined Ray are not those that the replica stamp was given for; empty when they are.

    Args:
        stamped: the stamp's hosts with the digests of their fingerprints.
        joined: the same, from the labels of the live Ray nodes.
    """
    reasons = [
        f"{host} joined with fingerprint {digest}, the replica stamp was given for {stamped[host]}"
        for host, digest in sorted(joined.items())
        if host in stamped and stamped[host] != digest
    ]
    return reasons + [
        f"{host} joined, but the replica stamp does not cover it" for host in sorted(set(joined) - set(stamped))
    ]


def decide_here(kind: Kind) -> Decision:
    """The decision for the host that this runs on. A record that cannot be read refuses."""
    try:
        record = host_record.read()
        host = record["host"] if record else "this host"
        isolation = quarantine.parse(records.read(records.QUARANTINE))
        if kind == "host":
            host_stamp = stamps.parse_host_stamp(records.read(records.HOST_STAMP))
            return may_start_ray(host, isolation, host_stamp, fingerprint.current())
        replica_stamp = stamps.parse_replica_stamp(records.read(records.REPLICA_STAMP))
        return may_start_engine(host, isolation, replica_stamp, fingerprint.current())
    except records.RecordError as error:
        stop = Stop.of(error)
        return Decision(False, f"a record is damaged, and a damaged record admits no host: {stop.cause}", stop.next)


def main(arguments: list[str]) -> int:
    if arguments not in (["host"], ["replica"]):
        print("usage: python3 -m lockstep.admission.condition host|replica", file=sys.stderr)
        return 255
    decision = decide_here("host" if arguments == ["host"] else "replica")
    print(("admitted: " if decision.allowed else "refused: ") + decision.reason, flush=True)
    return 0 if decision.allowed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
