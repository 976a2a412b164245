"""This host's end of its replica's tunnel: its key, its files, and what is to be said of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from ..core import host_record, records
from ..core.commands import Run, run_command
from ..core.host_record import HostRecord, Tunnel
from ..core.system import read_text
from . import tunnel
from .tunnel import INTERFACE, TunnelError

FOLDER = Path("/etc/wireguard")
CONFIGURATION = FOLDER / f"{INTERFACE}.conf"
KEY = FOLDER / f"{INTERFACE}.key"
WG = "/usr/bin/wg"
DEADLINE = 10.0


class State(TypedDict):
    """``wanted``: the replica's hosts are to talk through a tunnel. ``problem``: why it is not as wanted; "" where it is.

    ``handshakes``: when each peer shook hands last, by host, in Unix seconds; None where it never did.
    """

    wanted: bool
    problem: str
    handshakes: dict[str, int | None]


def state(run: Run = run_command) -> State:
    """What is to be said of this host's tunnel; never raises."""
    if not records.TUNNEL.exists():
        return {"wanted": False, "problem": "", "handshakes": {}}
    try:
        return _seen(run)
    except (records.RecordError, OSError, ValueError, KeyError, TypeError) as error:
        return {"wanted": True, "problem": f"it cannot be read: {error}", "handshakes": {}}


def _seen(run: Run) -> State:
    """Never by ``wg show dump``, which would print the private key."""
    address = run(["ip", "-json", "-4", "address", "show", "dev", INTERFACE], DEADLINE)
    shown = run([WG, "show", INTERFACE, "allowed-ips"], DEADLINE)
    own = [item["local"] for one in json.loads(address.stdout or "[]") for item in one.get("addr_info", ())]
    wanted_text = CONFIGURATION.read_text(encoding="utf-8")
    problem = tunnel.difference(wanted_text, shown.stdout if shown.ok else None, own)
    if not shown.ok:
        return {"wanted": True, "problem": problem, "handshakes": {}}
    latest = run([WG, "show", INTERFACE, "latest-handshakes"], DEADLINE)
    peers = dict((records.read(records.TUNNEL) or {})["peers"])
    return {
        "wanted": True,
        "problem": problem,
        "handshakes": tunnel.handshakes(peers, shown.stdout, latest.stdout if latest.ok else ""),
    }


def public_key() -> str:
    """This host's public key; "" where it has no key yet. Raises TunnelError: ``wg`` does not take the key."""
    return _wg("pubkey", KEY.read_text(encoding="ascii")) if KEY.exists() else ""


def make_key() -> bool:
    """Make this host's key unless it has one. It is root's alone, and no other program than ``wg`` reads it.

    Returns whether it was made. Raises TunnelError, OSError.
    """
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    if KEY.exists():
        os.chmod(KEY, 0o600)
        return False
    records.replace(KEY, _wg("genkey") + "\n", 0o600)
    return True


def _wg(verb: str, given: str = "") -> str:
    done = subprocess.run([WG, verb], input=given, capture_output=True, text=True, timeout=DEADLINE)
    if done.returncode:
        raise TunnelError(f"wg {verb}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def wanted(settings: Mapping[str, Any], keys: Mapping[str, str]) -> tuple[Tunnel, str]:
    """tunnel.json and wg-quick's configuration for this host.

    Args:
        settings: ``network`` and ``port``.
        keys: public key by host.

    Raises:
        TunnelError: no tunnel can be made of them.
        RecordError: gpu_host has not run here.
    """
    identity = host_record.without_tunnel()
    inside = tunnel.network(settings["network"])
    made = tunnel.record(identity, inside, int(settings["port"]))
    return made, tunnel.configuration(identity, made, inside, keys)


def write(made: Tunnel, text: str, *, dry: bool = False) -> bool:
    """Write both files. Returns whether they (would) change."""
    changed = records.read(records.TUNNEL) != dict(made) or read_text(CONFIGURATION) != text
    if changed and not dry:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        records.replace(CONFIGURATION, text, 0o600)
        records.write(records.TUNNEL, dict(made))
    return changed


def remove(*, dry: bool = False) -> bool:
    """Remove both files. The key stays: a roll that is taken back needs it again. Returns whether they were there."""
    there = [path for path in (records.TUNNEL, CONFIGURATION) if path.exists()]
    if not dry:
        for path in there:
            path.unlink()
    return bool(there)


def place(record: HostRecord | None) -> dict[str, str]:
    """The address by which others know the host of a record, and where its ranks meet; empty where gpu_host has not run."""
    if record is None:
        return {}
    return {"interface": host_record.ranks_interface(record), "address": str(record["address"])}
