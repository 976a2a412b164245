"""Readiness: a table of signs of life, vLLM's real metrics, and the door itself."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import readiness
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.readiness import Signs

FIXTURES = Path(__file__).parents[2] / "fixtures" / "vllm"


@pytest.mark.parametrize(
    ("signs", "ready", "wedged", "says"),
    [
        (Signs("serving", silent_for=0), True, False, ""),
        (Signs("serving", silent_for=9.9), True, False, ""),
        (Signs("serving", silent_for=9.9, failure="timeout"), True, False, ""),
        (Signs("serving", silent_for=10), False, False, "no token for 10 s"),
        (Signs("serving", silent_for=12, failure="timed out"), False, False, "no token for 12 s: timed out"),
        (Signs("serving", silent_for=25), False, True, "no token for 25 s"),
        (Signs("serving", silent_for=None), False, False, "no completion was proven yet"),
        (Signs("serving", silent_for=1, alive=False), False, False, "the engine process is gone"),
        (Signs("serving", silent_for=99, alive=False), False, False, "the engine process is gone"),
        (Signs("serving", silent_for=1, engine_dead=True), False, False, "its engine is dead"),
        (Signs("serving", silent_for=30, engine_dead=True), False, True, "no token for 30 s"),
        (Signs("draining", "wave 2", silent_for=1), False, False, "draining: wave 2"),
        (Signs("draining", "wave 2", silent_for=40), False, True, "no token for 40 s"),
        (Signs("waiting", "a2 is missing", silent_for=1), False, False, "waiting: a2 is missing"),
        (Signs("starting", silent_for=1), False, False, "starting"),
        (Signs("given_up", "6 failures", silent_for=99), False, False, "given_up: 6 failures"),
    ],
)
def test_judge(signs: Signs, ready: bool, wedged: bool, says: str) -> None:
    verdict = readiness.judge(signs, stale=10, wedged=25)
    assert (verdict.ready, verdict.wedged) == (ready, wedged)
    assert verdict.reason == says if ready else says in verdict.reason


def test_metrics_of_a_real_engine() -> None:
    before = (FIXTURES / "0.32.0" / "metrics_before.txt").read_text(encoding="utf-8")
    after = (FIXTURES / "0.32.0" / "metrics_after.txt").read_text(encoding="utf-8")
    earlier, later = readiness.work_done(before), readiness.work_done(after)
    assert earlier is not None
    assert later is not None
    assert later > earlier
    assert readiness.requests_in_flight(before) == 0
    busy = before.replace(
        'vllm:num_requests_running{engine="0",model_name="tiny"} 0.0',
        'vllm:num_requests_running{engine="0",model_name="tiny"} 3.0',
    )
    assert readiness.requests_in_flight(busy) == 3


def test_metrics_that_are_none() -> None:
    assert readiness.work_done("# nothing\n") is None
    assert readiness.requests_in_flight("") is None


def test_the_door_says_what_is_seen_now() -> None:
    seen = {"ready": False}
    server = readiness.serve("127.0.0.1", 0, lambda: (seen["ready"], {"phase": "serving"}))
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with pytest.raises(urllib.error.HTTPError, match="503") as refusal:
            urllib.request.urlopen(f"{url}/ready", timeout=5)
        assert json.load(refusal.value) == {"phase": "serving"}
        seen["ready"] = True
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
            assert (answer.status, json.load(answer)) == (200, {"phase": "serving"})
        with urllib.request.urlopen(urllib.request.Request(f"{url}/ready", method="HEAD"), timeout=5) as answer:
            assert (answer.status, answer.read()) == (200, b"")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/", timeout=5)
    finally:
        server.shutdown()
        server.server_close()
