"""What Ray's head knows of its cluster, asked over gRPC in about a millisecond.

Ray's own ``GcsClient`` blocks for its whole timeout while the head is away and refuses a head that was restarted; a
plain channel answers at once in both cases and tells a refused token from a head that is down. Needs the serving
environment's Python (``grpc`` and Ray's generated messages, imported when first used).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from ..core import host_record, records, typed, untrusted
from ..core.wording import with_port
from .ports import ray_ports
from .private import generated

HOST_LABEL = "lockstep.host"
FINGERPRINT_LABEL = "lockstep.fingerprint"
TOKEN = records.ETC / "ray-token"
NAMESPACE = b"lockstep"
"""Of the keys in Ray's store that are Lockstep's."""

Head = Literal["up", "down", "refused"]


@dataclasses.dataclass(frozen=True)
class Node:
    """One row of Ray's table of nodes.

    Attributes:
        node_id: Ray's, hex.
        address: that it joined under.
        port: of its node manager.
        host: inventory name (label ``lockstep.host``), None where it was not started by Lockstep.
        fingerprint: label ``lockstep.fingerprint``.
        alive: that Ray has not declared it dead.
        draining: that it takes no new work.
        resources: totals by name (``GPU``, ``CPU``, custom ones).
        free: what of these nobody holds.
        labels: all of them.
        started: seconds since the epoch.
        death: why it died, by Ray.
    """

    node_id: str
    address: str
    port: int = 0
    host: str | None = None
    fingerprint: str | None = None
    alive: bool = True
    draining: bool = False
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    free: Mapping[str, float] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    started: float = 0.0
    death: str = ""

    @property
    def gpus(self) -> float:
        return self.resources.get("GPU", 0.0)


@dataclasses.dataclass(frozen=True)
class Table:
    """Ray's nodes at one moment; without nodes where the head did not answer, with the reason in ``error``."""

    head: Head
    nodes: tuple[Node, ...] = ()
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Versions:
    """What the head runs; a node must have exactly the same."""

    ray: str
    python: str


class _Named(TypedDict):
    host: str | None


class NodeSummary(_Named, total=False):
    """A node as a probe tells of it."""

    address: str
    alive: bool
    draining: bool
    gpus: float
    gpus_free: float


class _Known(TypedDict):
    head: Literal["up", "down", "refused", "absent"]


class Summary(_Known, total=False):
    """A cluster as a probe tells of it; ``absent`` where Ray is not installed or could not be asked, with the reason."""

    error: str | None
    nodes: list[NodeSummary]


class Cluster:
    """A connection to the head at ``address`` that outlives the head's restarts.

    Args:
        address: of the head, without port.
        port: of its GCS; None for the one that ``ray.json`` names.
        token: the cluster's secret; None where it has none.
        timeout: seconds that one question may take.
    """

    def __init__(self, address: str, port: int | None = None, token: str | None = None, timeout: float = 2.0) -> None:
        grpc = self._grpc = importlib.import_module("grpc")
        self._gcs = generated("gcs_service_pb2")
        self._autoscaler = generated("autoscaler_pb2")
        self._timeout = timeout
        self._metadata = [("authorization", f"Bearer {token}")] if token else None
        options = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.enable_http_proxy", 0),
        ]
        self._channel = grpc.insecure_channel(with_port(address, port or ray_ports().gcs), options=options)
        services = generated("gcs_service_pb2_grpc")
        self._info = services.NodeInfoGcsServiceStub(self._channel)
        self._store = services.InternalKVGcsServiceStub(self._channel)
        self._state = generated("autoscaler_pb2_grpc").AutoscalerStateServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def table(self) -> Table:
        """The nodes now. A head that is away or refuses is part of the answer, not an exception."""
        try:
            info = self._ask(self._info.GetAllNodeInfo, self._gcs.GetAllNodeInfoRequest())
            status = self._ask(self._state.GetClusterStatus, self._autoscaler.GetClusterStatusRequest())
        except self._grpc.RpcError as error:
            return self._no_table(error)
        live = {state.node_id: state for state in status.cluster_resource_state.node_states}
        draining = self._autoscaler.NodeStatus.Value("DRAINING")
        return Table("up", tuple(_node(row, live.get(row.node_id), draining) for row in info.node_info_list))

    def versions(self) -> Versions | Table:
        """What the head runs, or why it does not answer."""
        request = self._gcs.InternalKVGetRequest(key=b"CLUSTER_METADATA", namespace=b"cluster")
        try:
            answer = self._ask(self._store.InternalKVGet, request)
        except self._grpc.RpcError as error:
            return self._no_table(error)
        if not answer.value:
            return Table("down", error="the head is starting")
        metadata = json.loads(answer.value)
        return Versions(str(metadata.get("ray_version")), str(metadata.get("python_version")))

    def get(self, key: str) -> bytes | None:
        """What lies under a key of Lockstep's own in the head's store; None where nothing does, or nobody answers."""
        request = self._gcs.InternalKVGetRequest(key=key.encode(), namespace=NAMESPACE)
        try:
            return bytes(self._ask(self._store.InternalKVGet, request).value) or None
        except self._grpc.RpcError:
            return None

    def put(self, key: str, value: bytes) -> bool:
        """Put something under a key of Lockstep's own. Returns whether the head has taken it."""
        request = self._gcs.InternalKVPutRequest(key=key.encode(), value=value, overwrite=True, namespace=NAMESPACE)
        try:
            self._ask(self._store.InternalKVPut, request)
        except self._grpc.RpcError:
            return False
        return True

    def remove(self, key: str) -> None:
        """Remove what lies under a key of Lockstep's own, where the head answers."""
        request = self._gcs.InternalKVDelRequest(key=key.encode(), namespace=NAMESPACE)
        with contextlib.suppress(self._grpc.RpcError):
            self._ask(self._store.InternalKVDel, request)

    def drain(self, node_id: str, reason: str, deadline: float) -> str:
        """Ask that no new work is placed on a node, which is to end within ``deadline`` seconds (Ray takes that for
        advice: the caller stops the node). Returns why Ray declines; empty when it accepts."""
        request = self._autoscaler.DrainNodeRequest(
            node_id=bytes.fromhex(node_id),
            reason=self._autoscaler.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            reason_message=reason,
            deadline_timestamp_ms=int((time.time() + deadline) * 1000),
        )
        try:
            answer = self._ask(self._state.DrainNode, request)
        except self._grpc.RpcError as error:
            return self._no_table(error).error
        return "" if answer.is_accepted else str(answer.rejection_reason_message or "declined")

    def _ask(self, method: Any, request: Any) -> Any:
        return method(request, timeout=self._timeout, metadata=self._metadata)

    def _no_table(self, error: Any) -> Table:
        status = self._grpc.StatusCode
        refused = error.code() in (status.UNAUTHENTICATED, status.PERMISSION_DENIED)
        reason = (
            f"no answer within {self._timeout:g} s" if error.code() == status.DEADLINE_EXCEEDED else error.details()
        )
        return Table("refused" if refused else "down", error=plain(reason or str(error.code())))


def token() -> str | None:
    """The cluster's token, from where Ray and systemd name it, else from the file that ray_node writes; None where
    there is none or this user may not read it."""
    places = (
        os.environ.get("RAY_AUTH_TOKEN_PATH"),
        os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"), "ray-token"),
        str(TOKEN),
    )
    for place in places:
        try:
            return Path(place or "").read_text(encoding="utf-8").strip()
        except OSError:
            continue
    return None


def answers(address: str, port: int, timeout: float = 1.0) -> bool:
    """Whether something accepts connections there within ``timeout`` seconds."""
    try:
        with socket.create_connection((address, port), timeout=timeout):
            return True
    except OSError:
        return False


def summary(runtime: Path = records.RUNTIME, timeout: float = 10.0) -> Summary:
    """The cluster that this host belongs to, for a caller with any Python: asked through the serving environment's."""
    python = runtime / "bin" / "python"
    if not python.exists():
        return _absent(f"{python} does not exist")
    environment = {**os.environ, "PYTHONPATH": str(records.LIB)}
    try:
        asked = subprocess.run(
            [str(python), "-m", "lockstep.ray.gcs"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=True,
        )
        return typed.parse(Summary, untrusted.parse_json(asked.stdout), typed.NEWER)
    except subprocess.CalledProcessError as error:
        return _absent(str(error.stderr).strip()[-200:])
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return _absent(str(error))


def main() -> int:
    """Print the table of this host's cluster as ``summary`` returns it."""
    identity = host_record.stored()
    if identity is None:
        print(json.dumps(_absent(f"{records.HOST} does not exist")))
        return 0
    table = Cluster(identity["head"]["address"], token=token()).table()
    print(json.dumps({"head": table.head, "error": table.error, "nodes": [_summary(node) for node in table.nodes]}))
    return 0


def _absent(error: str) -> Summary:
    return {"head": "absent", "error": _short(error), "nodes": []}


def _summary(node: Node) -> NodeSummary:
    return {
        "host": node.host,
        "address": node.address,
        "alive": node.alive,
        "draining": node.draining,
        "gpus": node.gpus,
        "gpus_free": node.free.get("GPU", 0.0),
    }


def _node(row: Any, live: Any, draining: int) -> Node:
    labels = dict(row.labels)
    return Node(
        node_id=row.node_id.hex(),
        address=row.node_manager_address,
        port=row.node_manager_port,
        host=labels.get(HOST_LABEL),
        fingerprint=labels.get(FINGERPRINT_LABEL),
        alive=row.state == 0 and live is not None,
        draining=live is not None and live.status == draining,
        resources=dict(row.resources_total),
        free=dict(live.available_resources) if live is not None else {},
        labels=labels,
        started=row.start_time_ms / 1000,
        death=_short(row.death_info.reason_message),
    )


def plain(text: str) -> str:
    """gRPC's reason of a failed call, without its wrapping."""
    return _short(text.rpartition("Failed to connect to remote host: ")[2].rpartition("last error: ")[2])


def _short(text: str, limit: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


if __name__ == "__main__":
    sys.exit(main())
