"""The main process of ``lockstep-ray.service``: what must be true before Ray starts, then Ray itself.

Ray's own start gives up after seconds when the head is away, and its reasons are lost in logs. This waits for the head
for as long as it takes, with one small question every few seconds, and keeps in ``/run/lockstep/ray.json`` why it
waits, for ``lockstep.ray.peer_status`` to report.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..admission import fingerprint, stamps
from ..core import host_record, processes, records
from ..core.host_record import HostRecord
from ..runtime import caches
from ..runtime import state as runtime_state
from . import gcs, peer_status, private, stacks
from .codes import StartCode
from .gcs import Table, Versions
from .ports import RAY_SETTINGS, RayPorts

SESSIONS_KEPT = 3
PAUSE = 1.0
"""Seconds between two questions to the head; one costs about a millisecond."""
FORGOTTEN_AFTER = 3
"""Samples in a row in which the head does not know this node, before it joins anew."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What ray_node wrote to ``/etc/lockstep/ray.json``.

    Attributes:
        ports: see RayPorts.
        temp_dir: where Ray keeps its sessions; short, since a socket's path may have 107 bytes.
        object_store_bytes: shared memory for objects; None leaves it to Ray.
        cpus: that Ray may hand out; None for all.
        resources: custom ones of this host.
        labels: of this host, beside Lockstep's own.
    """

    ports: RayPorts = dataclasses.field(default_factory=RayPorts)
    temp_dir: str = "/var/lib/lockstep/ray"
    object_store_bytes: int | None = None
    cpus: int | None = None
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Obstacle:
    """Why Ray cannot start now."""

    code: StartCode
    reason: str


def settings_of(record: Mapping[str, Any]) -> Settings:
    """The settings in a record; what it leaves out keeps its default."""
    return Settings(**{**record, "ports": RayPorts.parse(record)})


def arguments(identity: HostRecord, settings: Settings, digest: str) -> list[str]:
    """The command line for ``ray start`` on this host.

    Args:
        identity: ``host.json``.
        settings: ``ray.json``.
        digest: of this host's fingerprint.
    """
    ports = settings.ports
    labels = {
        **settings.labels,
        gcs.HOST_LABEL: identity["host"],
        gcs.FINGERPRINT_LABEL: digest,
    }
    joining = ["--head", f"--port={ports.gcs}"]
    if identity["ray_role"] == "worker":
        joining = [f"--address={identity['head']['address']}:{ports.gcs}"]
    given = [
        *joining,
        f"--node-ip-address={identity['address']}",
        f"--node-manager-port={ports.node_manager}",
        f"--object-manager-port={ports.object_manager}",
        f"--runtime-env-agent-port={ports.runtime_env_agent}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent}",
        f"--dashboard-agent-grpc-port={ports.dashboard_agent_grpc}",
        f"--metrics-export-port={ports.metrics}",
        f"--min-worker-port={ports.workers_first}",
        f"--max-worker-port={ports.workers_last}",
        f"--num-gpus={identity['gpus']}",
        "--labels=" + ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "--disable-usage-stats",
        "--log-color=false",
        "--block",
    ]
    if identity["ray_role"] == "head":
        given += [
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={ports.dashboard}",
            f"--temp-dir={settings.temp_dir}",
        ]
    if settings.cpus is not None:
        given.append(f"--num-cpus={settings.cpus}")
    if settings.object_store_bytes is not None:
        given.append(f"--object-store-memory={settings.object_store_bytes}")
    if settings.resources:
        given.append("--resources=" + json.dumps(dict(settings.resources), sort_keys=True))
    return ["start", *given]


def obstacle(identity: HostRecord, own: Versions, has_address: bool, head: Versions | Table | None) -> Obstacle | None:
    """What keeps this host from joining, or None.

    Args:
        identity: ``host.json``.
        own: what this host runs.
        has_address: whether its address is on one of its interfaces.
        head: the head's answer; None on the head itself.
    """
    if not has_address:
        return Obstacle(StartCode.ADDRESS_ABSENT, f"its address {identity['address']} is on none of its interfaces")
    if head is None:
        return None
    name = identity["head"]["host"]
    if isinstance(head, Table):
        if head.head == "refused":
            return Obstacle(StartCode.TOKEN_REFUSED, f"the head {name} refuses its token")
        return Obstacle(StartCode.WAITING_FOR_HEAD, f"waiting for the head {name} ({head.error})")
    if head != own:
        return Obstacle(
            StartCode.VERSION_REFUSED,
            f"runs Ray {own.ray} on Python {own.python}, the head {name} runs Ray {head.ray} on Python {head.python}",
        )
    return None


def main(argv: list[str]) -> int:
    """Wait until nothing stands in the way, then become Ray."""
    if argv[:1] == ["run"]:
        threading.Thread(target=_watch, args=("--head" in argv,), daemon=True).start()
        return private.command_line(argv[1:])
    identity = host_record.stored()
    if identity is None:
        print(f"{records.HOST} does not exist. Next: ansible-playbook site.yml", file=sys.stderr)
        return 1
    stamp = stamps.parse_host_stamp(records.read(records.HOST_STAMP))
    if stamp is None:
        print(f"{records.HOST_STAMP} does not exist. Next: ansible-playbook site.yml", file=sys.stderr)
        return 1
    settings = settings_of(records.read(RAY_SETTINGS) or {})
    _wait_until_clear(identity, settings)
    _prune_sessions(Path(settings.temp_dir))
    # The stamp's fingerprint: the unit's condition has just found, as root, that it is the host's. From within the unit, whose
    # /proc is not the host's where that is a container, it would be another.
    command = arguments(identity, settings, fingerprint.digest(stamp["fingerprint"]))
    _record(StartCode.STARTING, "Ray is starting")
    private.set_environment(settings.ports)
    caches.prune()
    for name, folder in {**caches.environment(), **caches.hub_environment()}.items():
        os.environ.setdefault(name, folder)  # Ray's workers have it from here, and fetch the model, each on its host
    print(f"{identity['host']} starts Ray as {identity['ray_role']}: ray {' '.join(command)}", flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "lockstep.ray.node", "run", *command])


def _watch(is_head: bool) -> None:
    """End this process, and so the unit, which systemd then starts anew, once Ray here is of no use any more.

    ``ray start --block`` takes a daemon that was ended by SIGTERM, as ``ray stop`` does, for nothing to act on and would
    stay. And a worker takes most of a minute to see that its head was restarted and does not know it.
    """
    expected = {"raylet", "gcs_server"} if is_head else {"raylet"}
    while not expected <= processes.children(os.getpid()):
        time.sleep(PAUSE)
    _answer_for_stacks()
    membership = None if is_head else _Membership()
    while True:
        gone = expected - processes.children(os.getpid())
        if gone:
            _end(f"{' and '.join(sorted(gone))} ended")
        if membership and membership.lost():
            _end("the head has started anew and does not know this node")
        time.sleep(PAUSE)


def _answer_for_stacks() -> None:
    """Save the stacks of this host's ranks whenever the engine's supervisor on the head asks for them."""
    with contextlib.suppress(records.RecordError):
        identity = host_record.stored()
        if identity and "head" in identity:
            head = identity["head"]["address"]
            stacks.Responder(identity["host"], lambda: gcs.Cluster(head, token=gcs.token())).start()


def _end(why: str) -> None:
    print(f"{why}; this unit ends with it", flush=True)
    os._exit(private.ENDED)


class _Membership:
    """Whether the head that answers knows this host's node. Its silence means nothing: it may come back."""

    def __init__(self) -> None:
        identity = host_record.require()
        self._host = identity["host"]
        self._cluster = gcs.Cluster(identity["head"]["address"], token=gcs.token())
        self._joined, self._unknown = False, 0

    def lost(self) -> bool:
        table = self._cluster.table()
        if table.head != "up":
            return False
        known = any(node.alive and node.host == self._host for node in table.nodes)
        self._joined |= known
        self._unknown = 0 if known else self._unknown + 1
        return self._joined and self._unknown >= FORGOTTEN_AFTER


def _wait_until_clear(identity: HostRecord, settings: Settings) -> None:
    own = Versions(runtime_state.state()["ray"] or "absent", platform.python_version())
    cluster = None
    if identity["ray_role"] == "worker":
        cluster = gcs.Cluster(identity["head"]["address"], settings.ports.gcs, gcs.token())
    recorded = None
    while True:
        found = obstacle(identity, own, _has_address(identity["address"]), cluster.versions() if cluster else None)
        if found is None:
            break
        if found != recorded:
            print(f"{identity['host']} {found.reason}", flush=True)
            _record(found.code, found.reason)
            recorded = found
        time.sleep(PAUSE)
    if cluster:
        cluster.close()


def _has_address(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _record(code: StartCode, reason: str) -> None:
    records.write(peer_status.RAY_STATE, {"code": code, "reason": reason, "at": records.now()})


def _prune_sessions(temp_dir: Path) -> None:
    """Every start leaves a folder of logs; keep the newest few."""
    sessions = sorted((path for path in temp_dir.glob("session_2*") if path.is_dir()), reverse=True)
    for old in sessions[SESSIONS_KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
