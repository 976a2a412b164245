"""What the client of tests/e2e and its reading of HAProxy's log make of what they get."""

from __future__ import annotations

import json

import pytest

from tests.e2e.traffic import router_log, shares, streamed

# As haproxy 2.6.12 logged it on the testbed; the first number is the second of the line.
LOG = [
    (1, "Server replicas/a is DOWN, reason: Layer4 connection problem, info: \"Connection refused\", check duration: 0ms. "
        "1 active and 0 backup servers left. 0 sessions active, 0 requeued, 0 remaining in queue."),
    (2, "Server replicas/a is UP, reason: Layer7 check passed, code: 200, check duration: 1ms. "
        "2 active and 0 backup servers online. 0 sessions requeued, 0 total in queue."),
    (3, "[WARNING]  (237) : Server replicas/a enters drain state. 1 active and 0 backup servers left."),
    (3, "Server replicas/a enters drain state. 1 active and 0 backup servers left. 0 sessions active, 0 requeued, 0 remaining in queue."),
    (4, '{"path": "/v1/completions", "status": 200, "replica": "b", "replicas_ready": 1}'),
    (5, "Server replicas/a is DOWN, reason: Layer7 wrong status, code: 503, check duration: 1ms. "
        "1 active and 0 backup servers left. 0 sessions active, 0 requeued, 0 remaining in queue."),
    (6, "Server replicas/a is UP, reason: Layer7 check passed, code: 200, check duration: 1ms. "
        "1 active and 0 backup servers online. 0 sessions requeued, 0 total in queue."),
    (7, "Server replicas/a remains in forced drain mode."),
    (8, "Server replicas/a is UP (leaving forced drain)."),
    (9, '{"path": "/v1/completions", "status": 200, "replica": "a", "replicas_ready": 2}'),
]  # fmt: skip


def read(since: float, until: float) -> tuple[object, ...]:
    lines = [json.dumps({"__REALTIME_TIMESTAMP": str(at * 10**6), "MESSAGE": text}) for at, text in LOG]
    log = router_log(lines, ("a", "b"), since, until)
    return log.outages(until), log.lowest(), shares(log.served), sorted(log.rotation)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (2.5, 10, ((("a", 3, 8),), 1, {"a": 1, "b": 1}, ["a", "b"])),
        (0, 2.5, ((("a", 1, 2),), 1, {}, ["a", "b"])),
        (2.5, 5, ((("a", 3, 5),), 1, {"b": 1}, ["b"])),
        (3.5, 7, ((), 1, {"b": 1}, ["b"])),
        (8.5, 10, ((), 2, {"a": 1}, ["a", "b"])),
    ],
    ids=["drained until it leaves the drain", "down and up", "out at the end", "out all the time", "in rotation"],
)
def test_outages_in_the_routers_log(since: float, until: float, expected: tuple[object, ...]) -> None:
    assert read(since, until) == expected


def test_a_stream_is_whole_or_an_error() -> None:
    events = ['data: {"choices": [{"text": "Y"}]}', "", 'data: {"choices": [{"text": "es"}]}', "", "data: [DONE]", ""]
    assert streamed("\n".join(events)) == "Yes"
    with pytest.raises(ValueError, match="broke off after 2"):
        streamed("\n".join(events[:4]))
