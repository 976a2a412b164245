"""All that a run needs to know of a host, read in one call and returned as one small JSON object.

It never imports torch, Ray or CUDA, and everything that could hang is bounded by its own short deadline.

Most runs change nothing, and then this is all that a host has to do for them. So what few probes need is imported where
it is needed, and files are read where a command would report the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from ..admission import fingerprint
from ..core import manifests, previous_settings, processes, records, systemd
from ..core.commands import Run, run_command, together
from ..core.system import os_release
from ..driver import gpu_identity
from ..driver import state as driver_state
from ..ray import firewall_live, tunnel_live
from ..runtime import state as runtime_state
from . import machine

if TYPE_CHECKING:
    from ..driver import nvidia_smi
    from ..ray import gcs
    from .state import (
        Boot,
        HostState,
        Manifest,
        Model,
        Network,
        Preflight,
        Record,
        Request,
        Router,
        System,
        Unit,
        Unread,
    )

UNITS = (
    "lockstep-ray.service",
    "lockstep-vllm.service",
    "nvidia-persistenced.service",
    "nvidia-fabricmanager.service",
    "haproxy.service",
)
_UNIT_PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "Result", "StateChangeTimestamp", "NRestarts")
COMMAND_DEADLINE = 10.0
ROUTER_MANIFEST = records.MANIFEST / "vllm_haproxy.json"
"""There where Lockstep has configured HAProxy."""
Value = TypeVar("Value")


def collect(request: Request) -> HostState:
    """The state of this host, JSON-ready. A part that could not be read is ``Unread``, never missing and never an exception."""
    driver = _guarded(lambda: driver_state.driver_state(also=request.get("driver_also", ())))
    runtime = _guarded(runtime_state.state)
    identity = fingerprint.compose(
        driver, runtime, os.uname().release, fingerprint.this_machine(), _gpu_identity(driver)
    )
    state: HostState = {
        "schema": 1,
        "os": _guarded(_system),
        "boot": _guarded(_boot),
        "clock": time.time(),
        "driver": driver,
        "runtime": runtime,
        "fingerprint": identity,
        "fingerprint_digest": fingerprint.digest(identity),
        "units": _guarded(lambda: units(UNITS)),
        "host": _record(records.HOST),
        "stamps": {"host": _record(records.HOST_STAMP), "replica": _record(records.REPLICA_STAMP)},
        "quarantine": _record(records.QUARANTINE),
        "change": _record(records.DRIVER),
        "previous": _guarded(previous_settings.summary),
        "engine": _engine(),
        "lock": _record(records.LOCK),
        "request": _record(records.REQUEST),
        "manifest": _guarded(lambda: _manifest(request.get("inputs", {}))),
        "disk_free_mib": _guarded(_disk),
        "networks": _guarded(_networks),
        "machine": _guarded(machine.machine),
        # Where there is none, what reads them need not be compiled.
        "filter": firewall_live.state() if records.FILTER.exists() else {"wanted": False, "problem": ""},
        "tunnel": (
            tunnel_live.state() if records.TUNNEL.exists() else {"wanted": False, "problem": "", "handshakes": {}}
        ),
    }
    if ROUTER_MANIFEST.exists():
        state["router"] = _guarded(_router)
    if request.get("preflight"):
        state["preflight"] = _guarded(lambda: _preflight(request))
    if request.get("ray"):
        state["ray"] = _guarded(_ray)
    return state


def _gpu_identity(driver: Mapping[str, object]) -> tuple[str, ...] | None:
    """UUIDs of the GPUs; nvidia-smi was asked already, and is not asked again."""
    listed = cast("Sequence[nvidia_smi.Gpu]", driver.get("gpus") or ())
    return gpu_identity.uuids(lambda: listed) if driver.get("loaded_version") else None


def _guarded(read: Callable[[], Value]) -> Value | Unread:
    try:
        return read()
    except (OSError, ValueError, KeyError, subprocess.SubprocessError, records.RecordError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _record(path: Path) -> Record | None:
    try:
        return records.read(path)
    except records.RecordError as error:
        return {"error": str(error)}


def _system() -> System:
    release = os_release()
    return {
        "distribution": release.get("ID", "unknown"),
        "like": release.get("ID_LIKE", ""),
        "version": release.get("VERSION_ID", ""),
        "kernel": os.uname().release,
        "arch": os.uname().machine,
        "python": sys.version.split()[0],
    }


def _boot() -> Boot:
    """When this host's first process started. The boot id alone would not do: a container shares its kernel's."""
    first = processes.read(1)
    if first is None:
        raise ValueError("/proc/1/stat cannot be read")
    after_boot = first.started / os.sysconf("SC_CLK_TCK")
    return {
        "id": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        "since": str(round(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + after_boot)),
        "monotonic_us": str(int(after_boot * 1e6)),
    }


def units(names: Sequence[str], run: Run = run_command) -> dict[str, Unit]:
    """States of systemd units by name."""
    return {name: _unit(properties) for name, properties in systemd.show(names, _UNIT_PROPERTIES, run=run).items()}


def _unit(properties: systemd.Properties) -> Unit:
    return {
        "load": properties.get("LoadState", ""),
        "active": properties.get("ActiveState", ""),
        "enabled": properties.get("UnitFileState", ""),
        "result": properties.get("Result", ""),
        "restarts": int(properties.get("NRestarts") or 0),
        "since": properties.get("StateChangeTimestamp", "").lstrip("@") or None,
    }


def _engine() -> Record | None:
    """What the engine's supervisor reports: a file of the user who serves."""
    try:
        found = records.read(records.ENGINE_STATE)
        if found is None:
            return None
        from ..core.codes import as_json
        from ..engine.record import EngineState

        state: Record = as_json(EngineState.parse(found))
    except records.RecordError as error:
        return {"error": str(error)}
    return state


def _manifest(desired: Mapping[str, str]) -> dict[str, Manifest]:
    """Whether each role was applied from what is ``desired`` of it, by role, and which of its files have changed since."""
    found: dict[str, Manifest] = {}
    key = manifests.key()
    for path in sorted(records.MANIFEST.glob("*.json")):
        record = manifests.parse(records.read(path) or {})
        found[path.stem] = {
            "current": manifests.applied(record, desired.get(path.stem), key),
            "same_code": manifests.same_code(record, desired.get(path.stem), key),
            "drifted": manifests.drifted(record, key),
        }
    return found


def _disk() -> dict[str, int]:
    free = {folder: os.statvfs(folder) for folder in ("/", "/opt", "/var", "/tmp")}
    return {folder: about.f_bavail * about.f_frsize >> 20 for folder, about in free.items()}


def _networks() -> dict[str, list[Network]]:
    """IPv4 networks by interface."""
    shown = _command(["ip", "-json", "-4", "address", "show"])
    return machine.networks(shown, Path("/proc/net/route").read_text(encoding="ascii"))


def _preflight(request: Request) -> Preflight:
    result: Preflight = {
        "taken_ports": taken_ports(request.get("ports", [])),
        "names": _name_problems(request.get("peers", {})),
    }
    port = request.get("tunnel")
    if port:
        result["tunnel"] = _guarded(lambda: machine.carrier(port))
    path = request.get("model")
    if path:
        result["model"] = _guarded(lambda: _model(path))
    wanted = request.get("api_keys")
    if wanted:
        result["drops_api_key"] = _drops_api_key(wanted)
    return result


def _drops_api_key(wanted: Sequence[str], path: Path = records.ETC / "vllm-api-key") -> bool:
    """Whether clients have a key that the engine would not take any more; ``wanted`` are digests of those that it would."""
    import hashlib

    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return False
    return bool(key) and hashlib.sha256(key.encode()).hexdigest() not in wanted


def _model(path: str) -> Model:
    from . import model

    return model.model(path)


def _name_problems(peers: Mapping[str, str]) -> dict[str, str | None]:
    """Problems by name, all looked up at once: where name servers do not answer, each look-up takes many seconds."""
    return together({name: partial(name_problem, name, address) for name, address in peers.items()})


def name_problem(name: str, address: str) -> str | None:
    """Why ``name`` and ``address`` do not resolve to each other here; None when they do.

    The address may have another name, such as the host's own where the inventory has one of its own for it, provided that
    this one means the address too.
    """
    import socket

    try:
        forward = _addresses_of(name)
    except OSError as error:
        return f"{name} does not resolve: {error}"
    if address not in forward:
        return f"{name} resolves to {', '.join(forward)}, not to {address}"
    try:
        canonical, aliases, _addresses = socket.gethostbyaddr(address)
    except OSError as error:
        return f"{address} has no name: {error}"
    known = sorted({canonical, *aliases})
    if any(item.split(".")[0] == name.split(".")[0] for item in known):
        return None
    for item in known:
        with contextlib.suppress(OSError):
            if address in _addresses_of(item):
                return None
    return f"{address} resolves to {', '.join(known)}, not to {name}, and that does not resolve to it"


def _addresses_of(name: str) -> list[str]:
    import socket

    return sorted({str(item[4][0]) for item in socket.getaddrinfo(name, None, socket.AF_INET)})


def taken_ports(ports: Iterable[int], from_outside: bool = False) -> dict[str, str]:
    """Ports that something other than Lockstep's own units listens on: port to the listener's unit or process.

    With ``from_outside``, without those on loopback.
    """
    asked = set(ports)
    if not asked:
        return {}
    listening = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            address, _, number = fields[1].rpartition(":")
            port = int(number, 16)
            if fields[3] == "0A" and port in asked and not (from_outside and _on_loopback(address)):
                listening[fields[9]] = port
    if not listening:
        return {}
    holders = _socket_holders(set(listening))
    named = {port: _listener(holders.get(inode), port) for inode, port in listening.items()}
    return {str(port): owner for port, owner in named.items() if not owner.startswith("lockstep-")}


def _on_loopback(address: str) -> bool:
    """Whether an address of /proc/net/tcp is 127.0.0.0/8 or ::1; its words are in the machine's order."""
    return address.endswith("7F") if len(address) == 8 else address == "0" * 24 + "01000000"


def _socket_holders(inodes: set[str]) -> dict[str, str]:
    """Inode to the pid of a process that has it open."""
    found: dict[str, str] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if len(found) == len(inodes):
            break
        for target in _open_files(pid):
            inode = target[len("socket:[") : -1] if target.startswith("socket:[") else ""
            if inode in inodes and inode not in found:
                found[inode] = pid
    return found


def _open_files(pid: str) -> Iterable[str]:
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{name}")


def _listener(pid: str | None, port: int) -> str:
    """Whose a listening socket is; one that systemd holds, as it does for a socket unit, is that unit's."""
    if pid is None:
        return "an unknown process"
    return (_socket_unit(port) if pid == "1" else None) or _process_owner(pid)


def _socket_unit(port: int) -> str | None:
    try:
        listed = _command(["systemctl", "list-sockets", "--all", "--full", "--no-legend"])
    except (OSError, subprocess.SubprocessError):
        return None
    rows = (line.split() for line in listed.splitlines())
    return next((row[1] for row in rows if len(row) > 1 and row[0].endswith(f":{port}")), None)


def _process_owner(pid: str) -> str:
    try:
        group = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return f"process {pid}"
    unit = re.search(r"/([\w@.:-]+\.service)", group)
    return unit.group(1) if unit else f"{name} (pid {pid})"


def _router() -> Router:
    from .. import haproxy
    from ..core import loaded

    try:
        return cast("Router", {**haproxy.Router().summary(), "unloaded": loaded.unloaded()})
    except haproxy.RouterError as error:
        raise ValueError(error) from error


def _ray() -> gcs.Summary:
    from ..ray import gcs

    return gcs.summary()


def _command(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_DEADLINE, check=True)
    return done.stdout
