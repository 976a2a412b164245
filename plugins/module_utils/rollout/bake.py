"""How a replica serves after a change against how it served before: errors and latency, from vLLM's own /metrics.

Everything but :func:`sample_replica` is a pure function. Figures are counters since the engine started; :func:`since` takes
what came between two moments. Latencies are compared by vLLM's own histogram buckets, without guessing inside them, and a
few slow ones that chance would bring are no cause: a quantile is bad when it lies surely beyond what is allowed.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import records, typed
from ..core.codes import as_json
from ..core.wording import many
from ..engine import completion, readiness, vllm_metrics
from ..engine import state as engine_state
from ..engine.configured import Target
from ..engine.record import EngineState
from ..engine.states import Phase
from ..engine.vllm_metrics import Buckets, Counters

BEFORE = records.STATE / "before.json"
"""What was seen of this head's replica before it was changed. A run that finds it half changed compares with this."""

# The median is what most clients see; the tenth that is slowest shows what strikes now and then.
_QUANTILES = ((0.5, "half"), (0.9, "nine in ten"))
# Standard deviations of a binomial count: chance alone passes it about once in a thousand bakes.
_SURE = 3.0
_FEWEST_COMPLETIONS = 3
_FEWEST_ERRORS = 3


@dataclasses.dataclass(frozen=True)
class Allowed:
    """What a change may cost.

    Attributes:
        latency_factor: how many times longer tokens may take than before.
        error_share: by how much the share of requests that end badly may grow.
        requests: fewer than this many show nothing; then completions of our own are compared.
    """

    latency_factor: float = 2.0
    error_share: float = 0.02
    requests: int = 20


@dataclasses.dataclass(frozen=True)
class Engine:
    """A model and the sizes that it is served with: figures of another engine are not comparable."""

    model: str
    layout: str | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Sample:
    """A replica at one moment.

    Attributes:
        ready: ``GET /ready`` answered 200.
        reason: why not.
        engine: its model and sizes: figures of another engine are not comparable.
        life: pid of its supervisor and how often that has started an engine; another one means that it was restarted.
        figures: of its /metrics; None where it has none.
        seconds: what a completion of our own took; None where none came.
        failure: why none came.
    """

    ready: bool
    reason: str = ""
    engine: Engine = Engine("")
    life: tuple[int, int] = (0, 0)
    figures: Counters | None = None
    seconds: float | None = None
    failure: str = ""


@dataclasses.dataclass(frozen=True)
class Before:
    """What was seen before the change: ``figures`` of the engine's life until then, and ``seconds`` of our own completions."""

    engine: Engine
    figures: Counters
    seconds: tuple[float, ...]
    at: str = ""

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> Before | None:
        """Raises RecordError where a record is there and is no such thing."""
        if record is None:
            return None
        try:
            engine = typed.parse(Engine, record["engine"], typed.NEWER)
            return cls(engine, Counters.parse(record["figures"]), tuple(record["seconds"]), str(record["at"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise records.RecordError(f"{BEFORE}: {type(error).__name__}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the samples mean: ``causes`` of a failure, none where it is good; and what was ``seen``."""

    causes: tuple[str, ...]
    seen: str


def since(earlier: Counters, later: Counters) -> Counters:
    """What was counted between two moments of one engine's life."""
    return Counters(
        _less(later.finished, earlier.finished),
        _less(later.answers, earlier.answers),
        {name: _less(edges, earlier.latencies.get(name, {})) for name, edges in later.latencies.items()},
    )


def evaluate(before: Before | None, samples: Sequence[Sample], allowed: Allowed) -> Verdict:
    """Hold all samples of a bake, in order, against what was seen before.

    An engine that was not ready, was restarted or failed a completion at any sample is bad whatever came after.
    """
    causes = [*_broken(samples)]
    first, last = samples[0], samples[-1]
    counted = since(first.figures, last.figures) if first.figures and last.figures else Counters()
    own = [sample.seconds for sample in samples if sample.seconds is not None]
    seen = [f"{many(counted.requests, 'request')}, {counted.errors or 'none'} ended badly"]
    comparable = before is not None and before.engine == last.engine
    was = before.figures if before is not None and comparable else Counters()
    enough = min(counted.requests, was.requests) >= allowed.requests
    causes += _errors(was, counted, allowed)
    if enough:
        for name, edges in sorted(counted.latencies.items()):
            slow, notes = _slow(name, was.latencies.get(name, {}), edges, allowed)
            causes += slow
            seen += notes
    elif own:
        slow, notes = _own(before.seconds if before is not None and comparable else (), own, allowed)
        causes += slow
        seen += [f"too few to compare ({allowed.requests} needed before and now)", *notes]
    if not comparable:
        seen.append("nothing to compare with" if before is None else "what was seen before was another model or layout")
    return Verdict(tuple(causes), "; ".join(seen))


def _broken(samples: Sequence[Sample]) -> Sequence[str]:
    for sample in samples:
        if not sample.ready:
            return [f"it is not ready: {sample.reason}"]
        if sample.life != samples[0].life:
            return ["its engine was restarted"]
        if sample.failure:
            return [f"a completion failed: {sample.failure}"]
    return []


def _errors(was: Counters, now: Counters, allowed: Allowed) -> Sequence[str]:
    share, share_before = _share(now.errors, now.requests), _share(was.errors, was.requests)
    if now.errors < _FEWEST_ERRORS or share <= share_before + allowed.error_share:
        return []
    reasons = {**{name: now.finished.get(name, 0) for name in ("error", "abort")}, "5xx": now.answers.get("5xx", 0)}
    which = ", ".join(f"{name} {int(count)}" for name, count in reasons.items() if count)
    return [
        f"{now.errors} of {many(now.requests, 'request')} ended badly ({which}): {share:.1%}, before {share_before:.1%}; "
        f"{allowed.error_share:.1%} more are allowed"
    ]


def _slow(name: str, was: Buckets, now: Buckets, allowed: Allowed) -> tuple[list[str], list[str]]:
    """Causes and what was seen of one latency."""
    total, total_before = now.get(math.inf, 0.0), was.get(math.inf, 0.0)
    if min(total, total_before) < allowed.requests:
        return [], []
    causes, seen = [], []
    for quantile, label in _QUANTILES:
        edge_before, edge = _quantile(was, quantile), _quantile(now, quantile)
        seen.append(f"{name}: {label} within {_seconds(edge)}, before {_seconds(edge_before)}")
        limit = min((bound for bound in now if bound >= edge_before * allowed.latency_factor), default=math.inf)
        if _surely_more(total - now[limit], 1 - quantile, total):
            causes.append(
                f"{name}: {label} took up to {_seconds(edge)}, before {_seconds(edge_before)}; "
                f"{allowed.latency_factor:g} times that is allowed"
            )
    return causes[:1], seen


def _surely_more(count: float, share: float, total: float) -> bool:
    """Whether so many of ``total`` are more than ``share`` of them, and more than chance makes of that share."""
    return count > share * total + _SURE * math.sqrt(share * (1 - share) * total)


def _own(was: Sequence[float], now: Sequence[float], allowed: Allowed) -> tuple[list[str], list[str]]:
    """The same from completions of our own."""
    median = statistics.median(now)
    note = f"own completions took {median:.2f} s (median of {len(now)})"
    if not was:
        return [], [note]
    median_before = statistics.median(was)
    note += f", before {median_before:.2f} s"
    if min(len(was), len(now)) >= _FEWEST_COMPLETIONS and median > median_before * allowed.latency_factor:
        return [f"{note}; {allowed.latency_factor:g} times that is allowed"], [note]
    return [], [note]


def _quantile(edges: Buckets, quantile: float) -> float:
    """The upper edge of the bucket in which the quantile lies."""
    total = edges[math.inf]
    return min(edge for edge, count in edges.items() if count >= quantile * total)


def _less(later: Mapping[Any, float], earlier: Mapping[Any, float]) -> dict[Any, float]:
    return {key: count - earlier.get(key, 0.0) for key, count in later.items()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _seconds(edge: float) -> str:
    return f"{edge:g} s" if math.isfinite(edge) else "more than was ever measured"


def sample_replica(target: Target) -> Sample:
    """Sample once, on the head: readiness, a completion, then the counters, which have that completion in them."""
    ready, silent = readiness.ask(target.ready_url)
    state = engine_state.read() or EngineState(Phase.STOPPED)
    engine = Engine(target.model, state.layout, state.tensor_parallel_size, state.pipeline_parallel_size)
    life = (state.pid, state.restarts)
    if not ready:
        return Sample(False, silent or state.reason or str(state), engine, life)
    proof = target.prove()
    shown = completion.get(target.url, "/metrics", deadline=5)
    figures = vllm_metrics.counters(shown[1]) if shown is not None and shown[0] == 200 else None
    return Sample(True, "", engine, life, figures, proof.seconds if proof.ok else None, proof.cause)


def may_be_recorded(change: Mapping[str, object] | None, settings_changed: bool, sample: Sample) -> bool:
    """Whether what is seen now is what was before a change: no change has begun, of driver or settings, and it serves."""
    return sample.ready and sample.seconds is not None and not settings_changed and not (change or {}).get("change")


def keep(before: Before) -> None:
    """Keep it for whichever run bakes the replica."""
    records.write(BEFORE, as_json(before))
