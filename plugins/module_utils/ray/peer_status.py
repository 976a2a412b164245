"""Why a host is not in its Ray cluster, reported by the host itself to its peers.

A host that is down in Ray publishes nothing there. ``lockstep-hoststatus.socket`` therefore starts
``python3 -m lockstep.ray.peer_status`` for each connection of a peer on the cluster interface; it reads nothing from the
network, writes one JSON object and ends. So the head alone, with no controller, can name the reason.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
import time

from ..admission import condition
from ..admission.quarantine import Stored as StoredQuarantine
from ..core import host_record, records, systemd, typed
from ..core.host_record import HostRecord
from ..driver import state as driver_state
from .codes import StartCode
from .ports import PEER_STATUS

UNIT = "lockstep-ray.service"
RAY_STATE = records.RUN / "ray.json"
_LIMIT = 65536
_PROPERTIES = ("ActiveState", "Result", "LoadState")


@dataclasses.dataclass(frozen=True)
class UnitStatus:
    """``lockstep-ray.service`` as systemd shows it.

    Attributes:
        active: ActiveState.
        result: Result, ``exec-condition`` where its condition refused.
        present: there is such a unit.
    """

    active: str = "unknown"
    result: str = ""
    present: bool = True


@dataclasses.dataclass(frozen=True)
class RayStatus:
    """What ``lockstep.ray.node`` last recorded; without a code where it recorded nothing. A newer one's may be unknown here."""

    code: StartCode | str | None = None
    reason: str = ""
    at: str = ""


@dataclasses.dataclass(frozen=True)
class HostStatus:
    """What a host reports of its part in the cluster.

    Attributes:
        host: its inventory name; ``""`` where it has none.
        answered: False where nobody was reached; the rest is then unknown.
        error: how asking failed.
        quarantine: the record, if there is one.
        refusal: why the unit's condition would not let it start now; empty when it would.
        driver: version of the loaded kernel module, None when none is loaded.
    """

    host: str = ""
    answered: bool = True
    error: str = ""
    unit: UnitStatus = UnitStatus()
    quarantine: StoredQuarantine | None = None
    refusal: str = ""
    driver: str | None = None
    ray: RayStatus = RayStatus()


def here() -> HostStatus:
    """This host's own status."""
    identity = _identity()
    unit = parse_unit(systemd.show([UNIT], _PROPERTIES, deadline=5)[UNIT])
    return HostStatus(
        host=str(identity.get("host", "")) if identity else "",
        unit=unit,
        quarantine=_quarantine(),
        refusal="" if unit.active == "active" else _refusal(),
        driver=driver_state.loaded_version(),
        ray=_ray(),
    )


def ask(host: str, address: str, port: int = PEER_STATUS, timeout: float = 10.0) -> HostStatus:
    """The status of the host at ``address``; ``answered`` is False when none, or none that can be used, has come whole
    within ``timeout`` seconds."""
    ends = time.monotonic() + timeout
    try:
        with socket.create_connection((address, port), timeout=timeout) as connection:
            return parse(host, _read_all(connection, ends))
    except OSError as error:
        return HostStatus(host, answered=False, error=_cause(error))


def parse(host: str, text: str) -> HostStatus:
    """The status in the JSON that a host sent. It speaks of ``host`` alone, whatever name it gives."""
    try:
        return dataclasses.replace(typed.parse(HostStatus, typed.loads(text), typed.PARTIAL), host=host)
    except typed.BadAnswer:
        return HostStatus(host, answered=False, error="invalid status reply")


def may_ask(remote: str, identity: HostRecord | None) -> bool:
    """Whether the one who connected is a host of the same replica, or this host itself."""
    return (
        remote.startswith("127.")
        or remote == "::1"
        or (identity is not None and remote in identity.get("peers", {}).values())
    )


def main() -> int:
    """One connection, accepted by systemd, is standard output."""
    remote = os.environ.get("REMOTE_ADDR", "127.0.0.1")
    if not may_ask(remote, _identity()):
        print(f"{remote} is not a host of this replica: no answer sent", file=sys.stderr)
        return 0
    print(json.dumps(dataclasses.asdict(here())), flush=True)
    return 0


def parse_unit(found: systemd.Properties) -> UnitStatus:
    """The unit's state from its properties."""
    return UnitStatus(
        found.get("ActiveState", "unknown"), found.get("Result", ""), present=found.get("LoadState") == "loaded"
    )


def _refusal() -> str:
    decision = condition.decide_here("host")
    return "" if decision.allowed else decision.reason


def _identity() -> HostRecord | None:
    try:
        return host_record.stored()
    except records.RecordError:
        return None


def _quarantine() -> StoredQuarantine | None:
    try:
        record = records.read(records.QUARANTINE)
        return None if record is None else typed.parse(StoredQuarantine, record, typed.PARTIAL)
    except (records.RecordError, typed.BadAnswer) as error:
        return {"reason": str(error)}


def _ray() -> RayStatus:
    try:
        return typed.parse(RayStatus, records.read(RAY_STATE) or {}, typed.PARTIAL)
    except (records.RecordError, typed.BadAnswer) as error:
        return RayStatus(reason=str(error))


def _read_all(connection: socket.socket, ends: float) -> str:
    """What comes until the other side hangs up; of more than ``_LIMIT`` bytes only so many, which are then no status.

    Raises:
        TimeoutError: it has not hung up when the clock stands at ``ends``.
    """
    parts, size = [], 0
    while size < _LIMIT:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(4096)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts).decode("utf-8", "replace")


def _cause(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    return (error.strerror or str(error)).lower()


if __name__ == "__main__":
    sys.exit(main())
