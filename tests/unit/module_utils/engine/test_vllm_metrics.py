"""vLLM's metrics, as a real engine gave them."""

from __future__ import annotations

import math
from pathlib import Path

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import vllm_metrics

FIXTURES = Path(__file__).parents[2] / "fixtures" / "vllm"


def test_metrics_of_a_real_engine() -> None:
    before = (FIXTURES / "0.32.0" / "metrics_before.txt").read_text(encoding="utf-8")
    after = (FIXTURES / "0.32.0" / "metrics_after.txt").read_text(encoding="utf-8")
    earlier, later = vllm_metrics.work_done(before), vllm_metrics.work_done(after)
    assert earlier is not None
    assert later is not None
    assert later > earlier
    assert vllm_metrics.requests_in_flight(before) == 0
    busy = before.replace(
        'vllm:num_requests_running{engine="0",model_name="tiny"} 0.0',
        'vllm:num_requests_running{engine="0",model_name="tiny"} 3.0',
    )
    assert vllm_metrics.requests_in_flight(busy) == 3


def test_metrics_that_are_none() -> None:
    assert vllm_metrics.work_done("# nothing\n") is None
    assert vllm_metrics.requests_in_flight("") is None


def test_counters_of_all_cores_add_up() -> None:
    text = """\
vllm:request_success_total{engine="0",finished_reason="stop"} 3.0
vllm:request_success_total{engine="1",finished_reason="stop"} 4.0
vllm:request_success_total{engine="1",finished_reason="error"} 1.0
http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 5.0
http_requests_total{handler="/metrics",method="GET",status="2xx"} 99.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.1"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 4.0
"""
    counted = vllm_metrics.counters(text)
    assert counted.finished == {"stop": 7.0, "error": 1.0}
    assert counted.answers == {"2xx": 5.0}
    assert counted.latencies == {"first token": {0.1: 3.0, math.inf: 4.0}}
