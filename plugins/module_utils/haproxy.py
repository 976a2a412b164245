"""HAProxy's runtime socket: which servers are there, draining and enabling one, and keeping that over reloads."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

SOCKET = Path("/run/haproxy/admin.sock")
STATE_FILE = Path("/var/lib/haproxy/lockstep-servers")
BACKEND = "replicas"

AdminState = Literal["ready", "drain"]

# Columns of `show servers state`, version 1 (HAProxy's management guide, "show servers state").
_NAME = 3
_OPERATIONAL = 5
_ADMIN = 6
_CHECK_RESULT, _CHECK_HEALTH, _CHECK_STATE = 11, 12, 13
_FORCED_DRAIN = 0x08


class RouterError(Exception):
    """HAProxy does not answer or declines; the message says why."""


@dataclasses.dataclass(frozen=True)
class Server:
    """One replica as HAProxy sees it.

    Attributes:
        name: the replica's.
        status: ``UP``, ``DOWN``, ``DRAIN``, ``MAINT``, ``no check``, with HAProxy's additions (``UP 1/2``).
        sessions: requests that run on it now.
        check: result of the last health check.
        draining: it was drained; HAProxy's status shows that only while it is up.
        address: where it answers, with the port; empty where HAProxy does not say.
    """

    name: str
    status: str
    sessions: int
    check: str = ""
    draining: bool = False
    address: str = ""

    @property
    def up(self) -> bool:
        return self.status.split(" ")[0] in ("UP", "no")


def parse_stat(text: str, backend: str = BACKEND) -> dict[str, Server]:
    """Servers of ``backend`` by name, from ``show stat``.

    Raises:
        RouterError: the text is no such table.
    """
    if not text.startswith("# pxname,"):
        raise RouterError(f"'show stat' answered {text.strip()[:200]!r}")
    rows = csv.DictReader(io.StringIO(text[2:]))
    return {
        row["svname"]: Server(
            row["svname"],
            row["status"],
            int(row["scur"] or 0),
            (row.get("last_chk") or row.get("check_desc") or "").strip(),
            address=(row.get("addr") or "").strip(),
        )
        for row in rows
        if row["pxname"] == backend and row["svname"] not in ("FRONTEND", "BACKEND")
    }


def parse_counts(text: str, name: str, backend: str = BACKEND) -> dict[str, int]:
    """What HAProxy has counted of one server since it started: ``requests``, and ``errors``: those that it answered with a 5xx,
    refused, or broke off.

    Raises:
        RouterError: the text is no table of ``show stat``, or has no such server.
    """
    parse_stat(text, backend)
    rows = csv.DictReader(io.StringIO(text[2:]))
    row = next((row for row in rows if (row["pxname"], row["svname"]) == (backend, name)), None)
    if row is None:
        raise RouterError(f"HAProxy knows no replica {name!r}")
    broken = int(row["econ"] or 0) + int(row["eresp"] or 0)
    return {"requests": int(row["stot"] or 0), "errors": max(int(row["hrsp_5xx"] or 0), broken)}


def worse(before: Mapping[str, int], now: Mapping[str, int], allowed: float, least: int = 3) -> tuple[str, bool]:
    """A summary of what came between two counts, and whether errors have become more frequent than ``allowed``.

    Args:
        before: counts at the first moment, whose share of errors is what was usual.
        now: counts at the second; smaller ones are those of a HAProxy that was restarted meanwhile.
        allowed: by how much the share of errors may grow.
        least: fewer errors than this are no rate.
    """
    restarted = now["requests"] < before["requests"]
    requests, errors = (now[key] - (0 if restarted else before[key]) for key in ("requests", "errors"))
    share = errors / requests if requests else float(errors > 0)
    usual = before["errors"] / before["requests"] if before["requests"] else 0.0
    summary = (
        f"the router counted {errors} errors in {requests} requests, before {before['errors']} in {before['requests']}"
    )
    return summary, errors >= least and share > usual + allowed


def parse_draining(dump: str) -> set[str]:
    """Names of drained servers, from ``show servers state``."""
    rows = [line.split(" ") for line in dump.splitlines() if line and not line.startswith("#")]
    return {row[_NAME] for row in rows if len(row) > _ADMIN and int(row[_ADMIN]) & _FORCED_DRAIN}


def keeping_admin_state(dump: str) -> str:
    """``show servers state`` for the state file: drained servers stay drained, health is left to be checked anew.

    A saved ``DOWN`` would keep a replica out after a reload until its check has passed again.
    """
    kept = []
    for line in dump.splitlines():
        fields = line.split(" ")
        if line.startswith("#") or len(fields) <= _CHECK_STATE:
            kept.append(line)
            continue
        fields[_OPERATIONAL] = "2"
        fields[_CHECK_RESULT], fields[_CHECK_HEALTH], fields[_CHECK_STATE] = "3", "2", "6"
        fields[_ADMIN] = str(int(fields[_ADMIN]) & _FORCED_DRAIN)
        kept.append(" ".join(fields))
    return "\n".join(line for line in kept if line.strip()) + "\n"


class Router:
    """HAProxy on this host.

    Args:
        path: its runtime socket, of level admin.
        state_file: where drained servers are kept over reloads.
        timeout: seconds that one command may take.
    """

    def __init__(self, path: Path = SOCKET, state_file: Path = STATE_FILE, timeout: float = 5.0) -> None:
        self._path, self._state_file, self._timeout = path, state_file, timeout

    def servers(self) -> dict[str, Server]:
        draining = parse_draining(self._ask(f"show servers state {BACKEND}"))
        servers = parse_stat(self._ask("show stat"))
        return {name: dataclasses.replace(seen, draining=name in draining) for name, seen in servers.items()}

    def server(self, name: str) -> Server:
        """One server. Raises RouterError when HAProxy does not know it."""
        servers = self.servers()
        if name not in servers:
            raise RouterError(f"HAProxy knows no replica {name!r}; it knows {', '.join(sorted(servers)) or 'none'}")
        return servers[name]

    def summary(self) -> dict[str, dict[str, dict[str, str | bool]]]:
        """The servers that HAProxy has now, as JSON: what a probe answers of a router."""
        return {
            "servers": {
                name: {"address": one.address, "status": one.status, "draining": one.draining, "up": one.up}
                for name, one in self.servers().items()
            }
        }

    def counts(self, name: str) -> dict[str, int]:
        """What was counted of one server (:func:`parse_counts`)."""
        return parse_counts(self._ask("show stat"), name)

    def set(self, name: str, state: AdminState) -> None:
        """Drain a server (what runs on it goes on) or enable it, and keep that over reloads."""
        refusal = self._ask(f"set server {BACKEND}/{name} state {state}").strip()
        if refusal:
            raise RouterError(f"HAProxy refuses state {state} of {name}: {refusal}")
        self.keep()

    def keep(self) -> None:
        """Write which servers are drained to the state file, in one step."""
        text = keeping_admin_state(self._ask(f"show servers state {BACKEND}"))
        handle, scratch = tempfile.mkstemp(dir=self._state_file.parent, prefix=f".{self._state_file.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)  # by its handle: the folder may be HAProxy's own
            os.fsync(stream.fileno())
        os.replace(scratch, self._state_file)

    def wait_idle(self, name: str, deadline: float, pause: float = 0.25) -> Server:
        """Wait until nothing runs on a server, at most ``deadline`` seconds; returns how it then is."""
        ends = time.monotonic() + deadline
        while (server := self.server(name)).sessions and time.monotonic() < ends:
            time.sleep(pause)
        return server

    def wait_up(self, name: str, deadline: float, pause: float = 0.25) -> Server:
        """Wait until a server's check passes, at most ``deadline`` seconds; returns how it then is."""
        ends = time.monotonic() + deadline
        while not (server := self.server(name)).up and time.monotonic() < ends:
            time.sleep(pause)
        return server

    def _ask(self, command: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                line.settimeout(self._timeout)
                line.connect(str(self._path))
                line.sendall(command.encode() + b"\n")
                parts = []
                while part := line.recv(65536):
                    parts.append(part)
        except OSError as error:
            raise RouterError(f"HAProxy does not answer at {self._path}: {error}") from error
        return b"".join(parts).decode("utf-8", "replace")
