"""Completions, against real sockets: good answers, every kind of bad one, and servers that never finish."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import completion
from tests.machine import ENDLESS, PATIENCE, loopback


def body(text: str = " lockstep holds.", model: str = "tiny", tokens: int = 3, **choice: Any) -> bytes:
    record = {
        "model": model,
        "choices": [{"text": text, "finish_reason": "length", **choice}],
        "usage": {"completion_tokens": tokens},
    }
    return json.dumps(record).encode()


def http(payload: bytes, status: str = "200 OK") -> list[bytes]:
    return [f"HTTP/1.1 {status}\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload]


def _read_request(line: socket.socket) -> bytes:
    text = b""
    while b"\r\n\r\n" not in text:
        text += line.recv(65536)
    head, _, payload = text.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(payload) < length:
        payload += line.recv(65536)
    return head + b"\r\n\r\n" + payload


@contextlib.contextmanager
def server(parts: list[bytes], pause: float = 0.0, hold: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """Accepts one connection, sends ``parts`` with ``pause`` seconds between, then closes, or holds the line."""
    asked: list[bytes] = []
    released = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        with contextlib.suppress(OSError):
            line, _ = listener.accept()
            with line:
                asked.append(_read_request(line))
                for part in parts:
                    line.sendall(part)
                    if released.wait(pause):
                        return
                if hold:
                    released.wait(ENDLESS)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        released.set()
        listener.close()
        thread.join(5)


def test_a_good_answer_is_proof() -> None:
    logprobs = {
        "tokens": [" lock", "step"],
        "token_logprobs": [-0.1, -0.2],
        "top_logprobs": [{" lock": -0.1, " x": -3}, None],
    }
    with server(http(body(logprobs=logprobs))) as (url, asked):
        answer = completion.prove(url, "tiny", "The cluster says:", "lockstep holds", "secret", PATIENCE, logprobs=2)
    assert (answer.ok, answer.failure, answer.cause) == (True, None, "")
    assert (answer.model, answer.text) == ("tiny", " lockstep holds.")
    assert answer.tokens == (
        completion.Token(" lock", -0.1, {" lock": -0.1, " x": -3}),
        completion.Token("step", -0.2, {}),
    )
    assert b"Authorization: Bearer secret" in asked[0]
    sent = json.loads(asked[0].split(b"\r\n\r\n", 1)[1])
    assert (sent["model"], sent["temperature"], sent["logprobs"]) == ("tiny", 0, 2)


@pytest.mark.parametrize(
    ("expected", "asked", "sent"), [(None, 1, 1), ("lock", 16, 16), (" Yes. Every host is in step.", 16, 36)]
)
def test_the_completion_is_long_enough_for_its_answer(expected: str | None, asked: int, sent: int) -> None:
    with server(http(body(text=expected or "x"))) as (url, requests):
        assert completion.prove(url, "tiny", "x", expected, deadline=PATIENCE, max_tokens=asked).ok
    assert json.loads(requests[0].split(b"\r\n\r\n", 1)[1])["max_tokens"] == sent


CASES = {
    "other model": (http(body(model="big")), "wrong_model", "serves 'big', expected 'tiny'"),
    "model unknown": (http(b'{"error": "no such model"}', "404 Not Found"), "wrong_model", "no model 'tiny'"),
    "other text": (http(body(text=" the fox")), "wrong_text", "' the fox', which does not contain 'lockstep'"),
    "no token": (http(body(text="", tokens=0)), "empty", "without a single token"),
    "wrong key": (http(b"{}", "401 Unauthorized"), "unauthorized", "refused the API key (HTTP 401)"),
    "engine died": (http(b'{"error": "EngineDeadError"}', "500 Internal Server Error"), "rejected", "EngineDeadError"),
    "not JSON": (http(b"<html>"), "broken", "<html>"),
    "no choices": (http(b'{"model": "tiny", "choices": []}'), "broken", "IndexError"),
    "not HTTP": ([b"SSH-2.0-OpenSSH_9.2\r\n"], "broken", "BadStatusLine"),
    "broken off": ([b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"], "broken", "not a completion"),
    "closed at once": ([], "broken", "RemoteDisconnected"),
}


@pytest.mark.parametrize(("parts", "failure", "cause"), CASES.values(), ids=CASES.keys())
def test_every_bad_answer_has_its_code(parts: list[bytes], failure: str, cause: str) -> None:
    with server(parts) as (url, _):
        answer = completion.prove(url, "tiny", "x", "lockstep", deadline=PATIENCE)
    assert (answer.ok, answer.failure) == (False, failure)
    assert cause in answer.cause
    assert url in answer.cause


def test_a_server_that_closes_after_its_answer() -> None:
    answer = body()
    head = b"HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: " + str(len(answer)).encode() + b"\r\n\r\n"
    for parts in ([head + answer], [head, answer], [head.split(b"Content-Length")[0] + b"\r\n", answer]):
        with server(parts) as (url, _):
            assert completion.prove(url, "tiny", "x", "lockstep", deadline=PATIENCE).ok


def test_an_end_of_text_is_a_token_too() -> None:
    with server(http(body(text="", tokens=1))) as (url, _):
        assert completion.prove(url, "tiny", "x", deadline=PATIENCE).ok


def test_nobody_there() -> None:
    with socket.create_server((loopback(), 0)) as taken:
        address, port = taken.getsockname()
    answer = completion.prove(f"http://{address}:{port}", "tiny", "x", deadline=PATIENCE)
    assert answer.failure == "refused"


HANGS = {
    "stays silent": ([], 0.0),
    "stops in the headers": ([b"HTTP/1.1 200 OK\r\n"], 0.0),
    "stops in the body": ([b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"], 0.0),
    "a byte at a time": ([b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", *[b" "] * 2000], 0.2),
}


@pytest.mark.parametrize(("parts", "pause"), HANGS.values(), ids=HANGS.keys())
def test_a_hang_ends_by_the_deadline(parts: list[bytes], pause: float) -> None:
    with server(parts, pause, hold=True) as (url, _):
        began = time.monotonic()
        answer = completion.prove(url, "tiny", "x", deadline=0.6)
        took = time.monotonic() - began
    assert answer.failure == "timeout"
    assert "within 0.6 s" in answer.cause
    assert took < PATIENCE  # the server holds on for longer


@pytest.mark.parametrize("url", ["10.0.0.1:8000", "ftp://a1", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no HTTP address"):
        completion.prove(url, "tiny", "x")
