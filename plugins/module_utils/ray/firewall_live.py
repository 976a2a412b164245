"""The packet filter as it is loaded: what this host wants of it, whether that is what the kernel has, and loading it.

``python3 -m lockstep.ray.firewall_live apply|remove|check``. What the kernel shows of a table isn't the text that was loaded,
so what it showed right after loading is kept (``LOADED``) and compared with what it shows now.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TypedDict

from ..core import host_record, records
from ..core.commands import Run, run_command
from . import firewall, firewall_sessions, ports

NFT = "/usr/sbin/nft"
SETTINGS = records.FILTER
LOADED = Path("/run/lockstep-filter/loaded.json")
LOCAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
RESERVED = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
DEADLINE = 10.0

Unusable = (records.RecordError, OSError, ValueError, KeyError)
"""What reading this host's records and the kernel's settings may raise."""


class FilterError(OSError):
    """nftables did not do what it was asked; the message has its reason."""


class State(TypedDict):
    """``wanted``: this host is to have the filter. ``problem``: why it is not, or may not be, as wanted; "" where it is."""

    wanted: bool
    problem: str


def wanted() -> str:
    """The table that this host is to have.

    Raises:
        RecordError, OSError, ValueError, KeyError: a record that it is made from is missing or damaged.
    """
    settings = records.read(SETTINGS)
    if settings is None:
        raise records.RecordError(f"{SETTINGS} does not exist", "ansible-playbook site.yml")
    parsed = firewall.Settings.parse(settings)
    return firewall.rules(host_record.require(), ports.ray_ports(), ports.engine_ports(), parsed, chosen())


def chosen() -> tuple[range, ...]:
    """The ports that this host's kernel hands out."""
    return firewall.chosen_by_kernel(LOCAL_RANGE.read_text(encoding="ascii"), RESERVED.read_text(encoding="ascii"))


def closed() -> tuple[range, ...]:
    """The ports that this host's table closes to others."""
    return firewall.closed_here(host_record.require(), ports.ray_ports(), ports.engine_ports(), chosen())


def state(run: Run = run_command) -> State:
    """What is to be said of this host's filter; never raises."""
    if not SETTINGS.exists():
        return {"wanted": False, "problem": ""}
    try:
        desired = wanted()
    except Unusable as error:
        return {"wanted": True, "problem": f"its rules cannot be made: {error}"}
    try:
        return {"wanted": True, "problem": difference(desired, run)}
    except FilterError as error:
        return {"wanted": True, "problem": f"its table cannot be read: {error}"}


def difference(desired: str, run: Run = run_command) -> str:
    """Why the table in the kernel is not ``desired``; "" where it is."""
    live = listed(run)
    if live is None:
        return "its table is not loaded"
    loaded = last_loaded()
    if loaded is None or loaded[1] != live:
        return "its table was changed by hand"
    return "" if loaded[0] == desired else "its table was made from other settings"


def listed(run: Run = run_command) -> str | None:
    """The table as the kernel has it, without counters; None where there is none.

    Raises:
        FilterError: nft did not say.
    """
    result = run([NFT, "--stateless", "list", "table", "inet", "lockstep"], DEADLINE)
    if result.ok:
        return result.stdout
    if "No such file or directory" in result.stderr:  # nft has one exit status for every error
        return None
    raise FilterError(f"nft list: {_reason(result.timed_out, result.stderr)}")


def last_loaded() -> tuple[str, str] | None:
    """The text that was loaded last, and how the kernel showed it then."""
    try:
        record = records.read(LOADED)
    except records.RecordError:
        return None
    return None if record is None else (str(record.get("rules")), str(record.get("listed")))


def apply(run: Run = run_command) -> bool:
    """Make the kernel's table the wanted one. Returns whether it was another, or none.

    Raises:
        FilterError: it could not be loaded. Those of :func:`wanted`.
    """
    desired = wanted()
    if not difference(desired, run):
        return False
    load(desired, run)
    return True


def load(desired: str, run: Run = run_command) -> None:
    """Load a table in place of what there is, in one step. Raises FilterError."""
    try:
        done = subprocess.run([NFT, "-f", "-"], input=desired, capture_output=True, text=True, timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        raise FilterError(f"nft -f: {_reason(True, '')}") from None
    if done.returncode:
        raise FilterError(f"nft -f: {_reason(False, done.stderr)}")
    records.write(LOADED, {"rules": desired, "listed": listed(run) or ""}, mode=0o600)


def end_uninvited(run: Run = run_command) -> int:
    """End the connections that came in while no table was loaded. Returns how many there were.

    Raises:
        RecordError, OSError, ValueError, KeyError: as :func:`wanted`.
    """
    identity, settings = host_record.require(), firewall.Settings.parse(records.read(SETTINGS) or {})
    allowed = firewall.allowed(ports.engine_ports(), settings)
    found = firewall_sessions.uninvited(firewall_sessions.read(), closed(), identity["peers"].values(), allowed)
    firewall_sessions.end(found, run)
    return len(found)


def remove(run: Run = run_command) -> bool:
    """Remove the table. Returns whether it was there."""
    there = listed(run) is not None
    if there:
        result = run([NFT, "delete", "table", "inet", "lockstep"], DEADLINE)
        if not result.ok:
            raise FilterError(f"nft delete: {_reason(result.timed_out, result.stderr)}")
    LOADED.unlink(missing_ok=True)
    return there


def _reason(timed_out: bool, stderr: str) -> str:
    return f"no answer within {DEADLINE:g} s" if timed_out else " ".join(stderr.split()) or "no reason given"


def main(arguments: list[str]) -> int:
    """``apply`` and ``remove`` print ``changed`` or ``unchanged``; ``check`` ends with 1 where the filter isn't as wanted."""
    verbs = {"apply": apply, "remove": remove}
    if len(arguments) != 1 or arguments[0] not in (*verbs, "check"):
        print("usage: python3 -m lockstep.ray.firewall_live apply|remove|check", file=sys.stderr)
        return 2
    if arguments[0] == "check":
        found = state()
        print(
            found["problem"] or ("the packet filter is as wanted" if found["wanted"] else "no packet filter is wanted")
        )
        return 1 if found["problem"] else 0
    try:
        changed = verbs[arguments[0]]()
    except Unusable as error:
        print(f"the packet filter is not as wanted: {error}", file=sys.stderr)
        return 1
    print("changed" if changed else "unchanged")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
