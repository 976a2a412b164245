"""Ask a vLLM server for a completion and evaluate what came back: the only sign of life that Lockstep believes.

``/health`` and ``/v1/models`` answer 200 while generation is dead (vllm-project/vllm #16259, #53157), so nothing here
asks them. Every request ends by its deadline, also when the server accepts the connection and then stays silent, or
answers one byte at a time.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
import time
import urllib.parse
from typing import Any, Literal

Failure = Literal["refused", "timeout", "unauthorized", "rejected", "broken", "wrong_model", "empty", "wrong_text"]

_LARGEST_ANSWER = 4 << 20
_BEFORE_ANSWER = 8
_CAUSES: dict[str, str] = {
    "refused": "nothing listens at {where}: {detail}",
    "timeout": "{where} did not finish a completion within {limit:g} s: {detail}",
    "unauthorized": "{where} refused the API key (HTTP {detail})",
    "rejected": "{where} answered {detail}",
    "broken": "{where} broke off or sent what is not a completion: {detail}",
    "wrong_model": "{where} serves {detail}",
    "empty": "{where} answered without a single token",
    "wrong_text": "{where} answered {detail}",
}


@dataclasses.dataclass(frozen=True)
class Token:
    """One generated token with what the model thought of it.

    Attributes:
        text: the token.
        logprob: its log probability (natural logarithm); None where the server gave none.
        alternatives: the likeliest tokens at this place with their log probabilities.
    """

    text: str
    logprob: float | None = None
    alternatives: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Completion:
    """What came of one request.

    Attributes:
        ok: a completion was generated, by the expected model, with the expected text.
        failure: a code for programs; None when ok.
        cause: the failure, for people; empty when ok.
        seconds: wall time of the request.
        model: the model that answered, as the server names it.
        text: the generated text.
        tokens: the generated tokens, where log probabilities were requested.
    """

    ok: bool
    seconds: float
    failure: Failure | None = None
    cause: str = ""
    model: str = ""
    text: str = ""
    tokens: tuple[Token, ...] = ()


class NoAnswer(Exception):
    """No usable answer came; ``failure`` is its code, the message what was seen."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure: Failure = failure


def prove(
    base_url: str,
    model: str,
    prompt: str,
    expected: str | None = None,
    api_key: str | None = None,
    deadline: float = 60.0,
    *,
    max_tokens: int = 16,
    logprobs: int | None = None,
) -> Completion:
    """Have ``model`` complete ``prompt`` greedily and hold the answer against what is expected.

    Args:
        base_url: ``http://host:port`` of the server, without a path.
        model: the name it must serve under, and must answer under.
        expected: text that the completion must contain; None accepts any token.
        api_key: sent as a bearer token.
        deadline: seconds that the whole request may take.
        max_tokens: length of the completion; raised where ``expected`` might not fit (a token is at least one byte).
        logprobs: how many alternatives per token to ask for.

    Raises:
        ValueError: ``base_url`` is no HTTP address. Whatever the server does is in the result, never raised.
    """
    started = time.monotonic()
    length = max(max_tokens, len(expected.encode()) + _BEFORE_ANSWER) if expected else max_tokens
    body: dict[str, Any] = {"model": model, "prompt": prompt, "max_tokens": length, "temperature": 0, "seed": 0}
    if logprobs is not None:
        body["logprobs"] = logprobs
    try:
        status, answer = request(base_url, "/v1/completions", body=body, api_key=api_key, deadline=deadline)
        name, text, count, tokens = _read(status, answer, model)
    except NoAnswer as refusal:
        cause = _CAUSES[refusal.failure].format(where=base_url, detail=refusal, limit=deadline)
        return Completion(ok=False, seconds=_since(started), failure=refusal.failure, cause=cause)
    failure, detail = _evaluate(name, text, count, model, expected)
    return Completion(
        ok=failure is None,
        seconds=_since(started),
        failure=failure,
        cause=_CAUSES[failure].format(where=base_url, detail=detail) if failure else "",
        model=name,
        text=text,
        tokens=tokens,
    )


def request(
    base_url: str, path: str, *, body: dict[str, Any] | None = None, api_key: str | None = None, deadline: float
) -> tuple[int, bytes]:
    """POST ``body`` as JSON, or GET where there is none, within ``deadline`` seconds. Returns status and answer.

    Raises:
        ValueError: ``base_url`` is no HTTP address.
        NoAnswer: nobody there, not in time, or not HTTP.
    """
    address = urllib.parse.urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"{base_url!r} is no HTTP address: give http://host:port")
    ends = time.monotonic() + deadline
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.hostname, address.port, timeout=deadline)
    headers = {"Content-Type": "application/json", "Connection": "close"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    try:
        connection.connect()
    except TimeoutError as error:
        raise NoAnswer("timeout", "the connection was not accepted") from error
    except OSError as error:
        raise NoAnswer("refused", str(error)) from error
    wire = connection.sock  # http.client forgets it once the headers are read; the answer still comes through it
    try:
        _limit(wire, ends)
        payload = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, body=payload, headers=headers)
        _limit(wire, ends)
        response = connection.getresponse()
        return response.status, _drain(wire, response, ends)
    except TimeoutError as error:
        raise NoAnswer("timeout", "it accepted the connection and then stayed silent") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer("broken", f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def get(base_url: str, path: str, *, deadline: float) -> tuple[int, str] | None:
    """Status and text of a GET; None when nobody answered within ``deadline`` seconds."""
    try:
        status, answer = request(base_url, path, deadline=deadline)
    except NoAnswer:
        return None
    return status, answer.decode("utf-8", "replace")


def _drain(wire: socket.socket, response: http.client.HTTPResponse, ends: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while not response.isclosed():
        _limit(wire, ends)
        part = response.read1(65536)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > _LARGEST_ANSWER:
            raise NoAnswer("broken", f"the answer is longer than {_LARGEST_ANSWER} bytes")
    return b"".join(parts)


def _limit(wire: socket.socket, ends: float) -> None:
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    wire.settimeout(left)


def _read(status: int, answer: bytes, model: str) -> tuple[str, str, int, tuple[Token, ...]]:
    if status in (401, 403):
        raise NoAnswer("unauthorized", str(status))
    if status == 404:
        raise NoAnswer("wrong_model", f"no model {model!r} (HTTP 404)")
    if status != 200:
        raise NoAnswer("rejected", f"HTTP {status}: {_excerpt(answer)}")
    try:
        record = json.loads(answer)
        choice = record["choices"][0]
        text = str(choice["text"])
        count = int((record.get("usage") or {}).get("completion_tokens", len(text)))
        return str(record["model"]), text, count, _tokens(choice.get("logprobs"))
    except (ValueError, LookupError, TypeError) as error:
        raise NoAnswer("broken", f"{type(error).__name__}: {error} in {_excerpt(answer)}") from error


def _tokens(logprobs: dict[str, Any] | None) -> tuple[Token, ...]:
    if not logprobs:
        return ()
    tokens = logprobs["tokens"]
    chances = logprobs.get("token_logprobs") or [None] * len(tokens)
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    return tuple(Token(text, chance, dict(top or {})) for text, chance, top in zip(tokens, chances, tops, strict=False))


def _evaluate(name: str, text: str, count: int, model: str, expected: str | None) -> tuple[Failure | None, str]:
    if name != model:
        return "wrong_model", f"{name!r}, expected {model!r}"
    if count < 1:
        return "empty", ""
    if expected is not None and expected not in text:
        return "wrong_text", f"{text[:200]!r}, which does not contain {expected!r}"
    return None, ""


def _excerpt(answer: bytes) -> str:
    return answer[:300].decode("utf-8", "replace").strip() or "nothing"


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
