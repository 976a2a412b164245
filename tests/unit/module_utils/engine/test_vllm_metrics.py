"""vLLM's metrics, as a real engine gave them."""

from __future__ import annotations

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
