"""A peer whose root is lost answers the head, which asks why it is missing in Ray (S12)."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.ray import assessment, gcs, peer_status
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.shape import Shape
from tests.machine import PATIENCE

SHAPE = Shape(
    members={"a1": "10.0.0.11", "a2": "10.0.0.12"}, head_host="a1", head="10.0.0.11", hosts=2, gpus_per_host=1
)
HOSTILE: list[Any] = [None, True, 7, -1.5, 10**30, "x", "\x1b[2J", [], [1], {}, {"x": 1}, [[]], {"reason": ["x"]}]
KEYS = ("answered", "error", "unit", "quarantine", "refusal", "driver", "ray")


@contextlib.contextmanager
def peer(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            connection, _address = listener.accept()
            with connection:
                serve(connection)

    threading.Thread(target=accept, daemon=True).start()
    yield int(listener.getsockname()[1])
    listener.close()


def assessed(status: peer_status.HostStatus) -> str:
    """All that the head makes of a status; the supervisor and the wait call this."""
    seen = assessment.Observation(gcs.Table("up"), {"a2": status})
    return str(assessment.assess(SHAPE, seen))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_whatever_a_peer_says_is_a_status_that_can_be_assessed(key: str, value: Any) -> None:
    status = peer_status.parse("a2", json.dumps({key: value}))
    assert status.host == "a2"
    assert "a2: " in assessed(status)
    assert "\x1b" not in assessed(status)


@pytest.mark.parametrize(
    "record",
    [
        {"unit": {"active": "failed", "result": [1]}},
        {"unit": {"present": "many"}},
        {"quarantine": {"reason": {}, "owner": 1}},
        {"ray": {"code": [], "reason": 1}},
    ],
)
def test_a_part_of_the_wrong_type_is_no_status(record: dict[str, Any]) -> None:
    status = peer_status.parse("a2", json.dumps(record))
    assert (status.answered, status.error) == (False, "invalid status reply")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"driver": NaN}', '{"unit": {"restarts": 1%s}}' % ("0" * 400), "\0"])
def test_what_is_no_json_of_ours_is_no_status(text: str) -> None:
    assert not peer_status.parse("a2", text).answered


def test_a_byte_now_and_then_does_not_hold_up_the_head() -> None:
    def trickle(connection: socket.socket) -> None:
        while True:
            connection.sendall(b" ")
            time.sleep(0.2)

    with peer(trickle) as port:
        began = time.monotonic()
        status = peer_status.ask("a2", "127.0.0.1", port, timeout=1.0)
    assert (status.answered, status.error) == (False, "no answer")
    assert time.monotonic() - began < PATIENCE


def test_an_answer_without_end_is_no_status() -> None:
    def flood(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"[" * 65536)

    with peer(flood) as port:
        status = peer_status.ask("a2", "127.0.0.1", port, timeout=PATIENCE)
    assert (status.answered, status.error) == (False, "invalid status reply")
