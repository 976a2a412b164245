"""What the gates of a run found: a matrix of hosts and gates, and figures as text. Pure.

A gate that ran more than once on a host (before and after a rollback, say) is one cell: its last verdict counts, and an
earlier one that failed is said.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import GateEvent
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.fields import Given

Sense = Literal["at least", "at most", "exactly"]

COLUMNS: Mapping[str, str] = {"driver": "driver", "network": "network", "nccl": "NCCL", "graph": "CUDA graphs"}
ACROSS = "across hosts"
ALL_GATES = frozenset(("diagnose", "verify"))
"""Playbooks that are to try every gate on every host."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """How a figure is shown; ``sense``: what the value beside it that it was compared with means."""

    name: str
    unit: str = ""
    sense: Sense = "at least"


MEASURES: Mapping[str, Measure] = {
    "all_gather": Measure("all-gather"),
    "all_reduce": Measure("all-reduce"),
    "broadcast": Measure("broadcast"),
    "busbw_gbps": Measure("bus bandwidth", "GB/s"),
    "capture_seconds": Measure("capture", "s"),
    "captures": Measure("graphs captured"),
    "checks": Measure("results checked"),
    "clock_skew_seconds": Measure("clock difference", "s", "at most"),
    "driver": Measure("driver", "", "exactly"),
    "gpus": Measure("GPUs"),
    "graphs": Measure("graphs by"),
    "look_up_seconds": Measure("name look-up", "s", "at most"),
    "mtu": Measure("MTU"),
    "nccl": Measure("NCCL"),
    "peers": Measure("to"),
    "ranks": Measure("ranks"),
    "reduce_scatter": Measure("reduce-scatter"),
    "replays": Measure("replays"),
    "rtt_ms": Measure("round trip", "ms", "at most"),
    "shm_mib": Measure("shared memory", "MiB"),
    "slowest_replay_ratio": Measure("slowest replay", "times the median", "at most"),
    "worst_deviation": Measure("largest deviation", "", "at most"),
    "worst_replay_ratio": Measure("slowest replay", "times the median", "at most"),
    "wrong": Measure("wrong results"),
}
LIMIT_OF: Mapping[str, str] = {"worst_replay_ratio": "slowest_replay_ratio"}
"""Measured under one key, limited under another."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """``bus bandwidth of all-reduce: 431 GB/s``, and ``limit``, such as ``at least 400 GB/s``; empty where there is none."""

    name: str
    value: str
    limit: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One gate on one host, or on several that are alike.

    Attributes:
        verdict: the last one; empty where the gate did not run.
        failed_before: whether an earlier run of it did not pass.
        seconds: of the slowest host.
    """

    verdict: str = ""
    failed_before: bool = False
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"

    @property
    def failed(self) -> bool:
        """Whether it ran and did not pass."""
        return bool(self.verdict) and not self.passed


@dataclasses.dataclass(frozen=True)
class MatrixRow:
    hosts: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclasses.dataclass(frozen=True)
class Matrix:
    columns: tuple[str, ...]
    rows: tuple[MatrixRow, ...]

    @property
    def failing(self) -> int:
        """Gates whose last verdict is no pass, each host's counted."""
        return sum(len(row.hosts) for row in self.rows for cell in row.cells if cell.failed)

    @property
    def failing_hosts(self) -> tuple[str, ...]:
        return tuple(host for row in self.rows if any(cell.failed for cell in row.cells) for host in row.hosts)


def column(gate: GateEvent) -> str:
    """The gate's name, as a heading: a gate over several hosts is another than the same within one."""
    name = COLUMNS.get(gate.gate, gate.gate)
    return f"{name} {ACROSS}" if len(hosts_of(gate)) > 1 else name


def hosts_of(gate: GateEvent) -> tuple[str, ...]:
    """The hosts that took part, by what the gate measured over; else the one that it is about."""
    listed = gate.measured.get("hosts")
    named = tuple(str(host) for host in listed) if isinstance(listed, (list, tuple)) else ()
    return named if len(named) > 1 else (gate.host,)


def matrix(gates: Sequence[GateEvent]) -> Matrix:
    """Hosts that are alike in every verdict share a row."""
    found: dict[str, dict[str, Cell]] = {}
    columns: dict[str, None] = {}
    for gate in gates:
        name = column(gate)
        columns.setdefault(name)
        for host in hosts_of(gate):
            earlier = found.setdefault(host, {}).get(name, Cell())
            failed = earlier.failed_before or bool(earlier.verdict and not earlier.passed)
            found[host][name] = Cell(gate.verdict, failed, gate.seconds)
    ordered = sorted(columns, key=lambda name: (name.endswith(ACROSS), _place(name)))
    alike: dict[tuple[tuple[str, bool], ...], list[str]] = {}
    for host, cells in found.items():
        row = [cells.get(name, Cell()) for name in ordered]
        alike.setdefault(tuple((cell.verdict, cell.failed_before) for cell in row), []).append(host)
    rows = []
    seconds = operator.attrgetter("seconds")
    for hosts in alike.values():
        slowest = [max((found[host].get(name, Cell()) for host in hosts), key=seconds) for name in ordered]
        rows.append(MatrixRow(tuple(sorted(hosts)), tuple(slowest)))
    rows.sort(key=lambda row: all(cell.passed or not cell.verdict for cell in row.cells))
    return Matrix(tuple(ordered), tuple(rows))


def not_run(gates: Sequence[GateEvent], playbook: str) -> dict[str, tuple[str, ...]]:
    """Gates that a playbook of all gates did not come to, each with its hosts; those hosts count that had a gate at all."""
    if playbook not in ALL_GATES:
        return {}
    ran = {(gate.gate, host) for gate in gates for host in hosts_of(gate)}
    hosts = sorted({host for _name, host in ran})
    missing = {name: tuple(host for host in hosts if (key, host) not in ran) for key, name in COLUMNS.items()}
    return {name: without for name, without in missing.items() if without}


def _place(name: str) -> int:
    names = list(COLUMNS.values())
    plain = name.removesuffix(f" {ACROSS}")
    return names.index(plain) if plain in names else len(names)


def figures(gate: GateEvent) -> list[Figure]:
    """What it measured, as text; lists and what has no value are for programs."""
    return [
        Figure(_name(path), _shown(value, path), _limit(gate.floor, path)) for path, value in _flat(gate.measured, ())
    ]


def _flat(measured: Given, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float | str]]:
    for key, value in measured.items():
        path = (*above, key)
        if isinstance(value, Mapping) and len(path) < 3:
            yield from _flat(value, path)
        elif path != ("seconds",) and (_is_number(value) or (isinstance(value, str) and 0 < len(value) < 60)):
            yield path, value


def _name(path: Sequence[str]) -> str:
    words = [MEASURES[key].name if key in MEASURES else key.replace("_", " ") for key in path]
    return " ".join(words)


def _shown(value: float | str, path: Sequence[str]) -> str:
    unit = next((MEASURES[key].unit for key in reversed(path) if key in MEASURES and MEASURES[key].unit), "")
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}".rstrip()


def _limit(limits: Given, path: Sequence[str]) -> str:
    """Of the figure itself, or of the one that it is a part of: a floor of bus bandwidth counts for the operation it names."""
    for key in reversed(path):
        value: Any = limits.get(LIMIT_OF.get(key, key))
        other = limits.get("operation") if key != path[-1] else None
        if not (_is_number(value) or isinstance(value, str)) or (other and other != path[-1]) or value == 0:
            continue
        measure = MEASURES.get(key, Measure(key))
        return f"{measure.sense} {_shown(value, (key,))}"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
