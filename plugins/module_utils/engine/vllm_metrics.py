"""The one reader of vLLM's ``/metrics`` (Prometheus text, vLLM's docs/usage/metrics.md)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

_SAMPLE = re.compile(r"^([a-z_:]+)\{([^}]*)\} (\S+)$", re.M)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

_TOKENS = ("vllm:generation_tokens_total", "vllm:iteration_tokens_total_count")
_REQUESTS = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_LATENCIES = {
    "vllm:time_to_first_token_seconds_bucket": "first token",
    "vllm:inter_token_latency_seconds_bucket": "next token",
}
_FINISHED = "vllm:request_success_total"
_ANSWERS = "http_requests_total"
"""prometheus_fastapi_instrumentator's."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One line: a metric's name, its labels, its value."""

    name: str
    labels: Mapping[str, str]
    value: float


Buckets = Mapping[float, float]


@dataclasses.dataclass(frozen=True)
class Counters:
    """What an engine has counted since its start, all its cores together.

    Attributes:
        finished: finished requests by reason (``stop``, ``length``, ``abort``, ``error``, …).
        answers: HTTP answers of the API by class (``2xx``, ``4xx``, ``5xx``).
        latencies: ``first token`` and ``next token`` to how many took at most that many seconds.
    """

    finished: Mapping[str, float] = dataclasses.field(default_factory=dict)
    answers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    latencies: Mapping[str, Buckets] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Counters:
        """From JSON, where the edges of buckets are text."""
        latencies = {
            name: {float(edge): float(count) for edge, count in edges.items()}
            for name, edges in record["latencies"].items()
        }
        return cls(dict(record["finished"]), dict(record["answers"]), latencies)

    @property
    def requests(self) -> int:
        return int(max(sum(self.finished.values()), sum(self.answers.values())))

    @property
    def errors(self) -> int:
        """Requests that ended badly: errors, and those whose client gave up waiting."""
        return int(max(self.finished.get("error", 0.0), self.answers.get("5xx", 0.0)) + self.finished.get("abort", 0.0))


def samples(text: str) -> Iterator[Sample]:
    """The lines that have labels, as all of vLLM's have."""
    for name, labels, value in _SAMPLE.findall(text):
        yield Sample(name, dict(_LABEL.findall(labels)), float(value))


def work_done(text: str) -> float | None:
    """A number that grows with every step of the engine; None where it has no such metrics."""
    found = [sample.value for sample in samples(text) if sample.name in _TOKENS]
    return sum(found) if found else None


def requests_in_flight(text: str) -> int | None:
    """Requests that run or wait; None where there are no such metrics."""
    found = [sample.value for sample in samples(text) if sample.name in _REQUESTS]
    return int(sum(found)) if found else None


def counters(text: str) -> Counters:
    """Requests, answers and latencies."""
    finished: dict[str, float] = {}
    answers: dict[str, float] = {}
    latencies: dict[str, dict[float, float]] = {}
    for sample in samples(text):
        labels = sample.labels
        if sample.name == _FINISHED:
            reason = labels["finished_reason"]
            finished[reason] = finished.get(reason, 0.0) + sample.value
        elif (
            sample.name == _ANSWERS and labels.get("handler", "").startswith("/v1/") and labels.get("method") == "POST"
        ):
            answers[labels["status"]] = answers.get(labels["status"], 0.0) + sample.value
        elif sample.name in _LATENCIES:
            edges = latencies.setdefault(_LATENCIES[sample.name], {})
            edge = float(labels["le"])
            edges[edge] = edges.get(edge, 0.0) + sample.value
    return Counters(finished, answers, latencies)
