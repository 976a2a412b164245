"""Asking every host of a replica for the stacks of its own ranks, and answering: through the head's store of keys.

The engine's supervisor puts one request there; ``lockstep.ray.node`` of each host sees it within a second, looks at its ranks
in a process of its own and puts its answer beside it. No host listens for this, and nobody logs in. Whoever holds the
replica's token can write there, so both sides take what they read for no more than text and numbers of modest size.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol, TypeVar

from ..core import typed
from ..core.codes import as_json
from ..core.commands import run_command
from . import ranks

REQUEST = "stacks/request"
ANSWER_LIMIT = 64 << 10
LOOK_DEADLINE = 4.0
"""Seconds in which a host looks at its ranks."""
DEADLINE = 6.0
"""Seconds that all hosts together have for their answers."""
PAUSE = 1.0
_POLL = 0.2
_ID = frozenset("0123456789abcdef")
_TEXT = 300

T = TypeVar("T")


class Store(Protocol):
    """What is needed of ``gcs.Cluster``."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes) -> bool: ...

    def remove(self, key: str) -> None: ...


@dataclasses.dataclass(frozen=True)
class Request:
    """To save the stacks of the ranks.

    Attributes:
        id: hexadecimal; the answer repeats it, and evidence is named after it.
    """

    id: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one host did about a request.

    Attributes:
        id: of the request.
        sight: None where it could not look within its deadline.
    """

    id: str
    sight: ranks.Sight | None = None


def answer_key(host: str) -> str:
    return f"stacks/answer/{host}"


def parse_request(value: bytes | None) -> Request | None:
    """The request in what lies there; None where it is none."""
    request = _parse(Request, value)
    usable = request is not None and 0 < len(request.id) <= 32 and _ID.issuperset(request.id)
    return request if usable else None


def parse_answer(value: bytes | None, request: Request) -> Answer | None:
    """The answer to a request in what lies there; None where it is none, or one to another request."""
    answer = _parse(Answer, value)
    if answer is None or answer.id != request.id:
        return None
    sight = answer.sight
    if sight is None:
        return answer
    seen = tuple(_clipped(rank) for rank in sight.ranks[: ranks.MOST_RANKS])
    return Answer(answer.id, ranks.Sight(seen, sight.folder[:_TEXT]))


def _clipped(rank: ranks.Rank) -> ranks.Rank:
    return dataclasses.replace(rank, frames=tuple(frame[:_TEXT] for frame in rank.frames[:8]))


def _parse(kind: type[T], value: bytes | None) -> T | None:
    if value is None or len(value) > ANSWER_LIMIT:
        return None
    try:
        return typed.parse(kind, typed.loads(value.decode("utf-8", "replace")), typed.NEWER)
    except typed.BadAnswer:
        return None


def ask(store: Store, hosts: Collection[str], deadline: float = DEADLINE) -> dict[str, Answer]:
    """The answers that come within ``deadline`` seconds, by host; none where the head does not take the request."""
    ends = time.monotonic() + deadline
    request = Request(secrets.token_hex(8))
    if not store.put(REQUEST, json.dumps(as_json(request)).encode()):
        return {}
    answers: dict[str, Answer] = {}
    while len(answers) < len(hosts) and time.monotonic() < ends:
        time.sleep(_POLL)
        for host in hosts:
            if host not in answers and time.monotonic() < ends:
                found = parse_answer(store.get(answer_key(host)), request)
                if found is not None:
                    answers[host] = found
    store.remove(REQUEST)
    return answers


def look(request: Request, folder: Path) -> Answer:
    """Look at this host's ranks, in a process of its own that has a deadline."""
    argv = [sys.executable, "-m", f"{__package__}.ranks", str(folder), f"stacks-{request.id}"]
    done = run_command(argv, LOOK_DEADLINE)
    return Answer(request.id, _parse(ranks.Sight, done.stdout.encode()) if done.ok else None)


class Responder(threading.Thread):
    """Answers the requests that come while it runs, one at a time.

    Args:
        host: that answers.
        connect: gives the head's store.
        folder: of this host's evidence.
    """

    def __init__(self, host: str, connect: Callable[[], Store], folder: Path = ranks.EVIDENCE) -> None:
        super().__init__(name="stacks", daemon=True)
        self._host, self._connect, self._folder = host, connect, folder
        self._last: str | None = None

    def run(self) -> None:
        store = self._connect()
        there = parse_request(store.get(REQUEST))
        self._last = there.id if there else None  # it has been answered, or its asker has gone
        while True:
            time.sleep(PAUSE)
            self.look_once(store)

    def look_once(self, store: Store) -> None:
        """Answer the request that lies there now, unless it was answered."""
        request = parse_request(store.get(REQUEST))
        if request is None or request.id == self._last:
            return
        self._last = request.id
        answer = look(request, self._folder)
        print(f"saved the stacks of this host's ranks for request {request.id}: {_summary(answer)}", flush=True)
        store.put(answer_key(self._host), json.dumps(as_json(answer)).encode())


def _summary(answer: Answer) -> str:
    if answer.sight is None:
        return f"they could not be looked at within {LOOK_DEADLINE:g} s"
    return answer.sight.folder or f"{len(answer.sight.ranks)} ranks, nothing saved"


def evidence_of(host: str, answer: Answer) -> str:
    """Where a host's stacks lie, as people write it; empty where none were saved."""
    return f"{host}:{answer.sight.folder}" if answer.sight is not None and answer.sight.folder else ""
