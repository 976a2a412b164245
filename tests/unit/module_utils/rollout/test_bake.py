"""What a bake makes of an engine's counters, before its change and after."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import vllm_metrics
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.vllm_metrics import Counters
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import bake
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.bake import Allowed, Before, Engine, Sample

FIXTURES = Path(__file__).parents[2] / "fixtures" / "vllm" / "0.32.0"
ENGINE = Engine("tiny", "tp1pp1", 1, 1)
# Upper edges of vLLM's inter-token histogram, some of them.
EDGES = (0.025, 0.05, 0.1, 0.2, 0.5, 1.0, math.inf)
METRICS = """\
# HELP vllm:request_success_total Count of successfully processed requests.
vllm:request_success_total{engine="0",finished_reason="stop",model_name="tiny"} 2.0
vllm:request_success_total{engine="1",finished_reason="stop",model_name="tiny"} 3.0
vllm:request_success_total{engine="0",finished_reason="error",model_name="tiny"} 1.0
http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 5.0
http_requests_total{handler="/v1/completions",method="POST",status="5xx"} 1.0
http_requests_total{handler="/metrics",method="GET",status="2xx"} 900.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="tiny"} 4.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="tiny"} 6.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="tiny"} 1.5
vllm:inter_token_latency_seconds_bucket{engine="0",le="+Inf",model_name="tiny"} 80.0
"""


def buckets(**counts: int) -> dict[float, float]:
    """Cumulative counts from ``at_0_05=3``: three that took up to 0.05 s and more than the edge below."""
    found = {float(name.removeprefix("at_").replace("_", ".")): count for name, count in counts.items()}
    return {edge: float(sum(count for at, count in found.items() if at <= edge)) for edge in EDGES}


def figures(ok: int, tokens: Mapping[float, float] | None = None, **finished: int) -> Counters:
    latencies = {"next token": dict(tokens)} if tokens else {}
    return Counters({"stop": float(ok), **{name: float(count) for name, count in finished.items()}}, {}, latencies)


def samples(now: Counters | None, *changes: Mapping[str, Any], seconds: float = 0.5) -> list[Sample]:
    """Samples of a bake that began with an engine fresh from its start; the last ones with ``changes``."""
    zero = Counters(latencies={"next token": dict.fromkeys(EDGES, 0.0)})
    good = Sample(True, engine=ENGINE, life=(7, 0), figures=zero, seconds=seconds)
    last = dataclasses.replace(good, figures=now)
    return [good, last, *(dataclasses.replace(last, **change) for change in changes), last]


BEFORE = Before(ENGINE, figures(100, buckets(at_0_05=90, at_0_1=10)), (0.5, 0.5, 0.6))
GOOD = figures(50, buckets(at_0_05=46, at_0_1=4))


def test_read_adds_engine_cores_up_and_knows_what_is_of_the_api() -> None:
    found = vllm_metrics.counters(METRICS)
    assert found.finished == {"stop": 5.0, "error": 1.0}
    assert found.answers == {"2xx": 5.0, "5xx": 1.0}
    assert found.latencies == {"first token": {0.1: 4.0, math.inf: 6.0}, "next token": {math.inf: 80.0}}
    assert (found.requests, found.errors) == (6, 1)
    later = vllm_metrics.counters(METRICS.replace('"stop",model_name="tiny"} 3.0', '"stop",model_name="tiny"} 10.0'))
    assert (bake.since(found, later).requests, bake.since(found, later).errors) == (7, 0)


def test_read_metrics_of_vllm() -> None:
    found = vllm_metrics.counters((FIXTURES / "metrics_served.txt").read_text(encoding="utf-8"))
    assert (found.requests, found.errors) == (13, 0)
    assert found.answers == {"2xx": 13.0}
    assert {name: (edges[0.01], edges[math.inf]) for name, edges in found.latencies.items()} == {
        "first token": (2.0, 13.0),
        "next token": (116.0, 119.0),
    }


@pytest.mark.parametrize(
    ("before", "seen", "causes", "expected"),
    [
        pytest.param(BEFORE, samples(GOOD), [], ["50 requests, none ended badly", "half within 0.05 s, before 0.05 s"], id="as before"),
        pytest.param(BEFORE, samples(figures(50, buckets(at_0_1=50))), [], ["half within 0.1 s, before 0.05 s"],
                     id="one bucket more is within twice as long"),
        pytest.param(BEFORE, samples(figures(50, buckets(at_0_2=50))), ["half took up to 0.2 s, before 0.05 s; 2 times"], [],
                     id="all tokens slow"),
        pytest.param(BEFORE, samples(figures(50, buckets(at_0_05=160, at_0_5=40))), ["nine in ten took up to 0.5 s, before 0.05 s"], [],
                     id="one token in five slow"),
        pytest.param(BEFORE, samples(figures(50, buckets(at_0_05=40, at_0_5=10))), [], ["nine in ten within 0.5 s, before 0.05 s"],
                     id="one in five, but so few that chance may have been it"),
        pytest.param(BEFORE, samples(figures(40, GOOD.latencies["next token"], error=10)), ["10 of 50 requests", "error 10", "20.0%"], [],
                     id="errors"),
        pytest.param(BEFORE, samples(figures(2, error=2)), [], ["2 ended badly", "too few"], id="two errors are no rate"),
        pytest.param(BEFORE, samples(figures(1, error=3)), ["3 of 4 requests"], [], id="few requests, most of them bad"),
        pytest.param(dataclasses.replace(BEFORE, figures=figures(80, BEFORE.figures.latencies["next token"], abort=20)),
                     samples(figures(40, GOOD.latencies["next token"], abort=10)), [], [], id="clients that went away before as well"),
        pytest.param(BEFORE, samples(figures(3)), [], ["too few to compare (20 needed", "took 0.50 s", "before 0.50 s"], id="idle"),
        pytest.param(BEFORE, samples(figures(3), seconds=1.2), ["own completions took 1.20 s", "2 times"], [], id="idle and slow"),
        pytest.param(BEFORE, samples(None), [], ["too few to compare"], id="no metrics"),
        pytest.param(None, samples(figures(50, buckets(at_1_0=50))), [], ["nothing to compare with", "own completions took"],
                     id="nothing known of before"),
        pytest.param(dataclasses.replace(BEFORE, engine=dataclasses.replace(ENGINE, model="large")), samples(figures(50, buckets(at_1_0=50))), [],
                     ["another model or layout"], id="another model before"),
        pytest.param(BEFORE, samples(GOOD, {"ready": False, "reason": "no token for 11 s"}), ["not ready: no token for 11 s"], [],
                     id="not ready for a moment"),
        pytest.param(BEFORE, samples(GOOD, {"life": (7, 1)}), ["its engine was restarted"], [], id="restarted"),
        pytest.param(BEFORE, samples(GOOD, {"seconds": None, "failure": "answered 'x'"}), ["a completion failed: answered 'x'"], [],
                     id="wrong answer"),
    ],
)  # fmt: skip
def test_evaluate(before: Before | None, seen: list[Sample], causes: list[str], expected: list[str]) -> None:
    verdict = bake.evaluate(before, seen, Allowed())
    assert bool(verdict.causes) == bool(causes), verdict
    for fragment in causes:
        assert fragment in "; ".join(verdict.causes)
    for fragment in expected:
        assert fragment in verdict.seen


def test_what_is_allowed_is_the_operators_choice() -> None:
    slow = samples(figures(50, buckets(at_0_2=50)))
    assert bake.evaluate(BEFORE, slow, Allowed(latency_factor=4)).causes == ()
    bad = samples(figures(45, GOOD.latencies["next token"], error=5))
    assert bake.evaluate(BEFORE, bad, Allowed(error_share=0.1)).causes == ()
    assert bake.evaluate(BEFORE, bad, Allowed(error_share=0.05)).causes != ()


def test_what_was_before_survives_its_record() -> None:
    kept = json.loads(json.dumps(as_json(BEFORE)))
    assert Before.from_record(kept) == BEFORE
    assert Before.from_record(None) is None
    with pytest.raises(records.RecordError, match=r"before\.json"):
        Before.from_record({"engine": {}})


@pytest.mark.parametrize(
    ("change", "settings_changed", "sample", "may"),
    [
        pytest.param(None, False, samples(GOOD)[-1], True, id="never changed"),
        pytest.param({"change": None, "verified": {"version": "1"}}, False, samples(GOOD)[-1], True, id="no change"),
        pytest.param(
            {"change": {"to": {"version": "2"}}}, False, samples(GOOD)[-1], False, id="within a driver change"
        ),
        pytest.param(None, True, samples(GOOD)[-1], False, id="with other settings than before"),
        pytest.param(None, False, Sample(False, "starting"), False, id="does not serve"),
        pytest.param(None, False, Sample(True, seconds=None, failure="no token"), False, id="does not answer"),
    ],
)
def test_only_what_served_before_a_change_is_kept(
    change: dict[str, Any] | None, settings_changed: bool, sample: Sample, may: bool
) -> None:
    assert bake.may_be_recorded(change, settings_changed, sample) is may
