"""All that a run needs to know of a host, learnt in one read-only call and returned as one small JSON object.

It never imports torch, Ray or CUDA, and everything that could hang is bounded by its own short deadline.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from . import apt_index, fingerprint, inputs, nvidia, nvidia_packages, records, rollout_lock, runtime_state

UNITS = (
    "lockstep-ray.service",
    "lockstep-vllm.service",
    "nvidia-persistenced.service",
    "nvidia-fabricmanager.service",
    "haproxy.service",
)
COMMAND_DEADLINE = 10.0


def collect(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The state of this host.

    Args:
        wanted: what the plan will ask about, all optional: ``ports`` (numbers that Lockstep's units will listen on),
            ``peers`` (host name to address, to be resolved both ways), ``driver`` (``version``, ``source``,
            ``flavor``, ``fabric_manager``, ``repository_url``: can it be had?), looked up only while the host does not
            already have that version; ``preflight`` (bool): look at ports, peers and repository at all; ``ray`` (bool):
            ask Ray for its nodes.

    Returns:
        JSON-ready dictionary; docs/architecture.md shows it. A part that could not be read is ``{"error": "…"}``
        under its own key, never a missing key and never an exception.
    """
    driver = _guarded(nvidia.driver_state)
    runtime = _guarded(runtime_state.state)
    identity = fingerprint.compose(driver, runtime, os.uname().release)
    state: dict[str, Any] = {
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
        "engine": _record(records.ENGINE_STATE),
        "lock": _record(rollout_lock.LOCK),
        "request": _record(rollout_lock.REQUEST),
        "manifest": _guarded(_manifest),
        "disk_free_mib": _guarded(_disk),
        "addresses": _guarded(_addresses),
    }
    if wanted.get("preflight"):
        state["preflight"] = _guarded(lambda: _preflight(wanted, driver))
    if wanted.get("ray"):
        state["ray"] = _guarded(_ray)
    return state


def _guarded(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return look()
    except (OSError, ValueError, KeyError, subprocess.SubprocessError, records.RecordError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _record(path: Path) -> dict[str, Any] | None:
    try:
        return records.read(path)
    except records.RecordError as error:
        return {"error": str(error)}


def _system() -> dict[str, Any]:
    release = dict(
        re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(encoding="utf-8"), re.MULTILINE)
    )
    return {
        "distribution": release.get("ID", "unknown"),
        "like": release.get("ID_LIKE", ""),
        "version": release.get("VERSION_ID", ""),
        "codename": release.get("VERSION_CODENAME", ""),
        "kernel": os.uname().release,
        "arch": platform.machine(),
        "python": platform.python_version(),
        "hostname": socket.gethostname(),
        "secure_boot": _secure_boot(),
    }


def _secure_boot() -> bool | None:
    found = next(iter(sorted(Path("/sys/firmware/efi/efivars").glob("SecureBoot-*"))), None)
    return None if found is None else found.read_bytes()[-1:] == b"\x01"


def _boot() -> dict[str, Any]:
    """When this host's user space started. The boot id alone would not do: a container shares its kernel's."""
    shown = _command(["systemctl", "show", "--property=UserspaceTimestampMonotonic,UserspaceTimestamp"])
    return {
        "id": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        "since": _property(shown, "UserspaceTimestamp"),
        "monotonic_us": _property(shown, "UserspaceTimestampMonotonic"),
    }


def units(names: Iterable[str]) -> dict[str, Any]:
    """State of systemd units: ``load``, ``active``, ``sub``, ``enabled``, ``result``, ``since`` (Unix seconds or None)."""
    wanted = "Id,LoadState,ActiveState,SubState,UnitFileState,Result,StateChangeTimestamp,NRestarts,ConditionResult"
    shown = _command(["systemctl", "show", "--timestamp=unix", f"--property={wanted}", *names])
    found = {}
    for block in shown.strip().split("\n\n"):
        found[_property(block, "Id")] = {
            "load": _property(block, "LoadState"),
            "active": _property(block, "ActiveState"),
            "sub": _property(block, "SubState"),
            "enabled": _property(block, "UnitFileState"),
            "result": _property(block, "Result"),
            "restarts": int(_property(block, "NRestarts") or 0),
            "since": _property(block, "StateChangeTimestamp").lstrip("@") or None,
        }
    return found


def _manifest() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(records.MANIFEST.glob("*.json")):
        record = records.read(path) or {}
        found[path.stem] = {"inputs": record.get("inputs"), "drifted": inputs.drifted(record)}
    return found


def _disk() -> dict[str, Any]:
    return {folder: shutil.disk_usage(folder).free >> 20 for folder in ("/", "/opt", "/var", "/tmp")}


def _addresses() -> dict[str, Any]:
    """IPv4 addresses by interface."""
    shown = json.loads(_command(["ip", "-json", "-4", "address", "show"]))
    return {item["ifname"]: [address["local"] for address in item.get("addr_info", [])] for item in shown}


def _preflight(wanted: Mapping[str, Any], driver: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "taken_ports": taken_ports(wanted.get("ports", [])),
        "names": _name_problems(wanted.get("peers", {})),
    }
    asked = wanted.get("driver")
    if asked and driver.get("package_version") != asked["version"]:
        found["driver_refusal"] = driver_refusal(**asked)
    return found


def driver_refusal(
    version: str,
    source: nvidia_packages.Source,
    flavor: nvidia_packages.Flavor,
    fabric_manager: bool,
    repository_url: str | None,
) -> str | None:
    """Why this exact driver cannot be had here, from the repository as it is now; None when it can."""
    if source == "verify":
        return None
    try:
        wants = nvidia_packages.wanted(
            version,
            source=source,
            flavor=flavor,
            distribution=str(_system()["distribution"]).capitalize(),
            fabric_manager=fabric_manager,
        )
        offered = (
            apt_index.offered(repository_url)
            if repository_url
            else apt_index.offered_by_apt([name for want in wants for name in want.names])
        )
        nvidia_packages.select(wants, offered)
    except (nvidia_packages.PackageError, apt_index.UnreadableIndex) as error:
        return str(error)
    return None


def _name_problems(peers: Mapping[str, str]) -> dict[str, str | None]:
    """Problems by name, all looked up at once: where names do not answer, each look-up takes many seconds."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(peers))) as pool:
        return dict(zip(peers, pool.map(name_problem, peers, peers.values()), strict=True))


def name_problem(name: str, address: str) -> str | None:
    """Why ``name`` and ``address`` do not resolve to each other here; None when they do."""
    try:
        forward = sorted({str(item[4][0]) for item in socket.getaddrinfo(name, None, socket.AF_INET)})
    except OSError as error:
        return f"{name} does not resolve: {error}"
    if address not in forward:
        return f"{name} resolves to {', '.join(forward)}, not to {address}"
    try:
        canonical, aliases, _addresses = socket.gethostbyaddr(address)
    except OSError as error:
        return f"{address} has no name: {error}"
    known = {canonical, *aliases}
    if not any(item == name or item.split(".")[0] == name.split(".")[0] for item in known):
        return f"{address} resolves to {', '.join(sorted(known))}, not to {name}"
    return None


def taken_ports(ports: Iterable[int]) -> dict[str, str]:
    """Ports that something other than Lockstep's own units listens on: port to the listener's unit or process."""
    asked = set(ports)
    if not asked:
        return {}
    listening = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rsplit(":", 1)[1], 16)
            if fields[3] == "0A" and port in asked:
                listening[fields[9]] = port
    if not listening:
        return {}
    owners = _socket_owners(set(listening))
    named = {port: owners.get(inode, "an unknown process") for inode, port in listening.items()}
    return {str(port): owner for port, owner in named.items() if not owner.startswith("lockstep-")}


def _socket_owners(inodes: set[str]) -> dict[str, str]:
    found = {}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        inode = target[len("socket:[") : -1] if target.startswith("socket:[") else ""
        if inode in inodes:
            found[inode] = _process_owner(link.parts[2])
    return found


def _process_owner(pid: str) -> str:
    try:
        group = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return f"process {pid}"
    unit = re.search(r"/([\w@.:-]+\.service)", group)
    return unit.group(1) if unit else f"{name} (pid {pid})"


def _ray() -> dict[str, Any]:
    from . import ray_cluster

    return ray_cluster.summary()


def _command(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_DEADLINE, check=True)
    return done.stdout


def _property(text: str, name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""
