"""Readiness: a table of signs of life, and the HTTP answer itself."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.error
import urllib.request

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import readiness
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.readiness import Signs
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.states import Phase
from tests.machine import PATIENCE


@pytest.mark.parametrize(
    ("signs", "ready", "wedged", "expected"),
    [
        (Signs(Phase.SERVING, silent_for=0), True, False, ""),
        (Signs(Phase.SERVING, silent_for=9.9), True, False, ""),
        (Signs(Phase.SERVING, silent_for=9.9, failure="timeout"), True, False, ""),
        (Signs(Phase.SERVING, silent_for=10), False, False, "no token for 10 s"),
        (Signs(Phase.SERVING, silent_for=12, failure="timed out"), False, False, "no token for 12 s: timed out"),
        (
            Signs(Phase.SERVING, silent_for=12, failure="timed out", suspect="rank 1 on a2 is stopped"),
            False,
            False,
            "no token for 12 s: rank 1 on a2 is stopped; timed out",
        ),
        (Signs(Phase.SERVING, silent_for=25), False, True, "no token for 25 s"),
        (Signs(Phase.SERVING, silent_for=None), False, False, "no completion was proven yet"),
        (Signs(Phase.SERVING, silent_for=1, alive=False), False, False, "the engine process is gone"),
        (Signs(Phase.SERVING, silent_for=99, alive=False), False, False, "the engine process is gone"),
        (Signs(Phase.SERVING, silent_for=1, engine_dead=True), False, False, "a dead engine"),
        (Signs(Phase.SERVING, silent_for=30, engine_dead=True), False, True, "no token for 30 s"),
        (Signs(Phase.DRAINING, "wave 2", silent_for=1), False, False, "draining: wave 2"),
        (Signs(Phase.DRAINED, "wave 2", silent_for=1), False, False, "draining: wave 2"),
        (Signs(Phase.DRAINED, "wave 2", silent_for=40), False, True, "no token for 40 s"),
        (Signs(Phase.DRAINING, "wave 2", silent_for=40), False, True, "no token for 40 s"),
        (Signs(Phase.WAITING, "a2 is missing", silent_for=1), False, False, "waiting: a2 is missing"),
        (Signs(Phase.STARTING, silent_for=1), False, False, "starting"),
        (Signs(Phase.GIVEN_UP, "6 failures", silent_for=99), False, False, "given_up: 6 failures"),
    ],
)
def test_evaluate(signs: Signs, ready: bool, wedged: bool, expected: str) -> None:
    verdict = readiness.evaluate(signs, stale=10, wedged=25)
    assert (verdict.ready, verdict.wedged) == (ready, wedged)
    assert verdict.reason == expected if ready else expected in verdict.reason
    assert verdict.silent == ("no token for" in verdict.reason)


def test_ready_answers_what_is_true_now() -> None:
    seen = {"ready": False}
    server = readiness.serve("127.0.0.1", 0, lambda: seen["ready"])
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with pytest.raises(urllib.error.HTTPError, match="503") as refusal:
            urllib.request.urlopen(f"{url}/ready", timeout=PATIENCE)
        assert json.load(refusal.value) == {"ready": False}, "an outsider reads ready or not, and nothing else"
        seen["ready"] = True
        with urllib.request.urlopen(f"{url}/ready", timeout=PATIENCE) as answer:
            assert (answer.status, json.load(answer)) == (200, {"ready": True})
        with urllib.request.urlopen(urllib.request.Request(f"{url}/ready", method="HEAD"), timeout=PATIENCE) as answer:
            assert (answer.status, answer.read()) == (200, b"")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/", timeout=PATIENCE)
    finally:
        server.shutdown()
        server.server_close()


def test_a_crowd_of_connections_is_queued() -> None:
    """While none is accepted, a hundred can connect: the next of the kernel's refusals costs the router's probe a second."""
    server = readiness.serve("127.0.0.1", 0, lambda: True)
    server.shutdown()
    with contextlib.ExitStack() as crowd:
        crowd.callback(server.server_close)
        for _ in range(100):
            crowd.enter_context(socket.create_connection(server.server_address[:2], timeout=0.9))
