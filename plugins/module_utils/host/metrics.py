"""This host's state as node_exporter's textfile collector reads it.

Run on hosts by a systemd timer: ``python3 -m lockstep.host.metrics --output <file>.prom``. Names: docs/reference/metrics.md.
:func:`samples` is pure; the file is replaced in one step, so that a scrape never sees half of one.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..admission import fingerprint
from ..core import data_tables, host_record, records
from ..core.grouping import grouped
from ..core.typed import part
from ..driver import known_issues
from ..engine.states import Phase
from . import answer as host_answer
from . import probe as host_probe
from . import running_issues
from .state import HostState

Kind = Literal["gauge", "counter"]

PARTS = ("os", "boot", "driver", "runtime", "units", "host", "quarantine", "engine", "manifest")
PHASES = tuple(phase.value for phase in Phase)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric's name without the prefix ``lockstep_``, its type, and its help."""

    name: str
    kind: Kind
    help: str


@dataclasses.dataclass(frozen=True)
class Sample:
    """One value of a metric."""

    metric: str
    value: float
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


METRICS = (
    Metric("host_info", "gauge", "What this host is and runs, in labels; always 1."),
    Metric("host_stamp_valid", "gauge", "1 where a host stamp exists for exactly what the host runs now."),
    Metric("host_stamp_timestamp_seconds", "gauge", "When the host stamp was given, Unix time."),
    Metric("host_quarantined", "gauge", "1 while the host is in quarantine; label kind says whose."),
    Metric("host_quarantine_timestamp_seconds", "gauge", "Since when the host is in quarantine, Unix time."),
    Metric(
        "replica_stamp_valid", "gauge", "1 where the head's replica stamp covers what the head runs now (heads only)."
    ),
    Metric("unit_active", "gauge", "1 while the systemd unit is active."),
    Metric("unit_restarts_total", "counter", "Restarts of the systemd unit by systemd since it was last started."),
    Metric("driver_consistent", "gauge", "1 where the loaded module is the installed version and nvidia-smi works."),
    Metric("gpus_declared", "gauge", "GPUs that the inventory declares for this host."),
    Metric("gpus_found", "gauge", "GPUs that the driver shows on this host."),
    Metric("xid_errors", "gauge", "Xid errors that the kernel reported since this host booted."),
    Metric("reboot_pending", "gauge", "1 where packages ask for a reboot."),
    Metric(
        "known_issue_days_left",
        "gauge",
        "Days of uptime until a known issue of what runs may come; label issue names it.",
    ),
    Metric("files_drifted", "gauge", "Managed files that differ from what was applied; label role says whose."),
    Metric(
        "filter_ok", "gauge", "1 where the packet filter in the kernel is the wanted one (where there is to be one)."
    ),
    Metric(
        "tunnel_ok", "gauge", "1 where the tunnel to the replica's hosts is the wanted one (where there is to be one)."
    ),
    Metric(
        "tunnel_handshake_timestamp_seconds",
        "gauge",
        "When the peer shook hands last through the tunnel, Unix time; 0 for never.",
    ),
    Metric("ray_up", "gauge", "1 where the head's control store answers (heads only)."),
    Metric("ray_host_joined", "gauge", "1 for each host of the replica that Ray counts as alive (heads only)."),
    Metric(
        "ray_unexpected_nodes",
        "gauge",
        "Nodes that Ray counts as alive and that are no host of the replica (heads only).",
    ),
    Metric("ray_gpus", "gauge", "GPUs that Ray counts in this cluster (heads only)."),
    Metric("ray_gpus_used", "gauge", "GPUs in this cluster that Ray has given away (heads only)."),
    Metric("engine_phase", "gauge", "1 for the phase that the engine supervisor is in, 0 for the others (heads only)."),
    Metric("engine_phase_timestamp_seconds", "gauge", "Since when it is in that phase, Unix time (heads only)."),
    Metric("engine_ready", "gauge", "1 while the engine reports that it may be sent requests (heads only)."),
    Metric("engine_last_completion_timestamp_seconds", "gauge", "When a token was last seen, Unix time (heads only)."),
    Metric(
        "engine_restarts_total", "counter", "Engine starts after the first, since the supervisor began (heads only)."
    ),
    Metric("engine_failures", "gauge", "Engine failures in a row (heads only)."),
    Metric(
        "engine_info", "gauge", "Layout, sizes and rung that the engine runs with, in labels; always 1 (heads only)."
    ),
    Metric(
        "engine_suspect",
        "gauge",
        "1 for each rank or host that keeps the engine from generating, 0 once it is ready again (heads only).",
    ),
    Metric("rollout_lock_held", "gauge", "1 while a roll holds the lock on this host (heads only)."),
    Metric("rollout_lock_heartbeat_timestamp_seconds", "gauge", "Last sign of life of that roll, Unix time."),
    Metric("rollout_requested", "gauge", "1 while a pause or an abort is asked of the roll, by action."),
    Metric("collect_errors", "gauge", "Parts of this host's state that could not be read."),
    Metric("collect_timestamp_seconds", "gauge", "When these values were collected, Unix time."),
)


def samples(state: HostState, issues: Sequence[known_issues.Issue] = ()) -> list[Sample]:
    """All that a probed state holds in numbers. What it does not hold yields no sample, rather than a zero.

    ``issues`` are rows of data/known_issues.yml.

    Each has labels for the host and its replica as the inventory calls them, where the host knows: as commands want them.
    """
    host = part(state, "host")
    own = {name: str(host[key]) for name, key in (("host", "host"), ("replica", "replica")) if host.get(key)}
    found = [
        *_host(state),
        *_units(state),
        *_driver(state),
        *_time_bombs(state, issues),
        *_manifest(state),
        *_filter(state),
        *_tunnel(state),
        *_ray(state),
        *_engine(state),
        *_rollout(state),
        *_collection(state),
    ]
    return [dataclasses.replace(sample, labels={**own, **sample.labels}) for sample in found]


def render(found: Iterable[Sample]) -> str:
    """The text exposition format, metrics in the order of :data:`METRICS`."""
    by_name = grouped((sample.metric, sample) for sample in found)
    unknown = sorted(set(by_name) - {metric.name for metric in METRICS})
    if unknown:
        raise ValueError(f"no such metric: {', '.join(unknown)}")
    lines = []
    for metric in METRICS:
        if metric.name in by_name:
            name = f"lockstep_{metric.name}"
            lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
            lines += [f"{name}{_labels(sample.labels)} {_value(sample.value)}" for sample in by_name[metric.name]]
    return "\n".join(lines) + "\n"


def _host(state: HostState) -> Iterator[Sample]:
    host, runs = part(state, "host"), part(state, "fingerprint")
    known = {name: value for name, value in runs.items() if name != "gpus"}  # a label each of DCGM's own metrics has
    about = {"host": host.get("host"), "replica": host.get("replica"), "role": host.get("ray_role"), **known}
    yield Sample("host_info", 1, {key: str(value or "") for key, value in about.items()})
    stamp = part(part(state, "stamps"), "host")
    if "stamps" in state:
        valid = bool(stamp.get("fingerprint")) and not fingerprint.changes(stamp["fingerprint"], runs)
        yield Sample("host_stamp_valid", valid)
    yield from _moment("host_stamp_timestamp_seconds", stamp.get("at"))
    if "quarantine" in state:
        quarantine = part(state, "quarantine")
        kind = {"kind": str(quarantine.get("kind") or "unknown")} if quarantine else {}
        yield Sample("host_quarantined", bool(quarantine), kind)
        yield from _moment("host_quarantine_timestamp_seconds", quarantine.get("at"))
    if host.get("ray_role") == "head" and "stamps" in state:
        hosts = part(state, "stamps").get("replica") or {}
        stamped = (hosts.get("hosts") or {}).get(host.get("host"))
        yield Sample("replica_stamp_valid", stamped is not None and stamped == state.get("fingerprint_digest"))


def _units(state: HostState) -> Iterator[Sample]:
    for unit, known in part(state, "units").items():
        if isinstance(known, Mapping) and known.get("load") == "loaded":
            yield Sample("unit_active", known.get("active") == "active", {"unit": unit})
            yield from _number("unit_restarts_total", known.get("restarts"), {"unit": unit})


def _driver(state: HostState) -> Iterator[Sample]:
    driver = part(state, "driver")
    yield from _number("gpus_declared", part(state, "host").get("gpus"))
    if not driver or driver.get("error"):
        return
    loaded = driver.get("loaded_version")
    consistent = loaded is not None and loaded == driver.get("package_version") and not driver.get("smi_failure")
    yield Sample("driver_consistent", consistent)
    yield Sample("gpus_found", len(driver.get("gpus") or []))
    yield Sample("xid_errors", sum(event.get("count", 1) for event in driver.get("xids") or []))
    yield Sample("reboot_pending", bool(driver.get("pending_reboot")))


def _time_bombs(state: HostState, issues: Sequence[known_issues.Issue]) -> Iterator[Sample]:
    for bomb in running_issues.time_bombs(state, issues):
        yield Sample("known_issue_days_left", round(bomb.days_left, 3), {"issue": bomb.issue.id})


def _manifest(state: HostState) -> Iterator[Sample]:
    for role, known in part(state, "manifest").items():
        if isinstance(known, Mapping):
            yield Sample("files_drifted", len(known.get("drifted") or []), {"role": role})


def _filter(state: HostState) -> Iterator[Sample]:
    filtered = part(state, "filter")
    if filtered.get("wanted"):
        yield Sample("filter_ok", not filtered.get("problem"))


def _tunnel(state: HostState) -> Iterator[Sample]:
    tunnel = part(state, "tunnel")
    if tunnel.get("wanted"):
        yield Sample("tunnel_ok", not tunnel.get("problem"))
        for peer, at in part(tunnel, "handshakes").items():
            yield Sample("tunnel_handshake_timestamp_seconds", at or 0, {"peer": str(peer)})


def _ray(state: HostState) -> Iterator[Sample]:
    ray = part(state, "ray")
    if "nodes" not in ray:
        return
    yield Sample("ray_up", ray.get("head") == "up")
    alive = [node for node in ray["nodes"] if node.get("alive")]
    names = {node.get("host") for node in alive}
    peers = part(state, "host").get("peers") or {}
    for host in peers:
        yield Sample("ray_host_joined", host in names, {"joined": str(host)})
    if peers:
        yield Sample("ray_unexpected_nodes", sum(node.get("host") not in peers for node in alive))
    gpus = sum(float(node.get("gpus") or 0) for node in alive)
    yield Sample("ray_gpus", gpus)
    yield Sample("ray_gpus_used", gpus - sum(float(node.get("gpus_free") or 0) for node in alive))


def _engine(state: HostState) -> Iterator[Sample]:
    engine = part(state, "engine")
    if "phase" not in engine:
        return
    for phase in PHASES:
        yield Sample("engine_phase", engine["phase"] == phase, {"phase": phase})
    yield from _moment("engine_phase_timestamp_seconds", engine.get("since"))
    yield Sample("engine_ready", bool(engine.get("ready")))
    yield from _moment("engine_last_completion_timestamp_seconds", engine.get("last_completion"))
    yield from _number("engine_restarts_total", engine.get("restarts"))
    yield from _number("engine_failures", engine.get("failures"))
    keys = ("layout", "tensor_parallel_size", "pipeline_parallel_size", "rung")
    yield Sample("engine_info", 1, {key: str(engine.get(key) or "") for key in keys})
    yield from _suspects(engine)


def _suspects(engine: Mapping[str, Any]) -> Iterator[Sample]:
    """Whom the supervisor named last; a rank is ``""`` where it is a whole host, or a process that is no rank."""
    suspect = part(engine, "suspect")
    if not suspect:
        return
    named = [
        (str(one["host"]), "" if one.get("rank") is None else str(one["rank"])) for one in suspect.get("where") or ()
    ]
    for host, rank in dict.fromkeys(named or [("", "")]):
        yield Sample(
            "engine_suspect", not engine.get("ready"), {"code": str(suspect["code"]), "suspect": host, "rank": rank}
        )


def _rollout(state: HostState) -> Iterator[Sample]:
    if part(state, "host").get("ray_role") != "head":
        return
    lock, request = part(state, "lock"), part(state, "request")
    yield Sample("rollout_lock_held", bool(lock))
    yield from _moment("rollout_lock_heartbeat_timestamp_seconds", lock.get("heartbeat"))
    if request.get("action"):
        yield Sample("rollout_requested", 1, {"action": str(request["action"])})


def _collection(state: HostState) -> Iterator[Sample]:
    errors = [name for name in PARTS if part(state, name).get("error")]
    yield Sample("collect_errors", len(errors))
    yield from _number("collect_timestamp_seconds", state.get("clock"))


def _number(metric: str, value: Any, labels: Mapping[str, str] | None = None) -> Iterator[Sample]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield Sample(metric, value, labels or {})


def _moment(metric: str, at: Any) -> Iterator[Sample]:
    try:
        moment = datetime.datetime.strptime(str(at), "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return
    yield Sample(metric, moment.replace(tzinfo=datetime.timezone.utc).timestamp())


def _labels(labels: Mapping[str, str]) -> str:
    shown = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{shown}}}" if shown else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _value(value: float) -> str:
    if value != value or value in (math.inf, -math.inf):  # as the format writes them
        return "NaN" if value != value else f"{'+' if value > 0 else '-'}Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _known_issues() -> Sequence[known_issues.Issue]:
    try:
        return data_tables.read("known_issues")
    except (FileNotFoundError, ValueError):
        return ()


def main(arguments: list[str]) -> int:
    """Collect and write once."""
    parser = argparse.ArgumentParser(prog="lockstep.host.metrics", description="Write this host's metrics once.")
    parser.add_argument("--output", type=Path, required=True, help="file in node_exporter's textfile directory, *.prom")
    output = parser.parse_args(arguments).output
    record = host_record.read()
    is_head = record is not None and record["ray_role"] == "head"
    state = host_answer.read(host_probe.collect({"ray": is_head, "driver_also": ["xids"]}))
    records.replace(output, render(samples(state, _known_issues())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
