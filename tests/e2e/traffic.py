"""A client of bounded load on the router, and what the router's own log shows of the same time.

Every request is sent once: nothing is tried again, so a request that the cluster loses is lost here too.
"""

from __future__ import annotations

import collections
import dataclasses
import http.client
import json
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

IN_FLIGHT = 64
"""The most requests that are on their way at once; when so many wait, the next one waits for its turn."""
LONG = 10
"""Each n-th request asks for many tokens, so that drains meet requests that run."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One request: when it was sent (Unix seconds), how long it took, its status, and why it failed, if it did."""

    n: int
    at: float
    seconds: float
    status: int
    failure: str = ""


class Traffic:
    """Requests at a steady pace from entering to leaving the context, each on a connection of its own.

    Half of them are streamed. An answer counts when it is whole: status 200, the expected text, and the end of its stream.

    Args:
        address: the router's, as ``host:port``.
        model: what is asked.
        prompt: to which the model is known to answer ``answer``.
        per_second: requests.
        deadline: seconds after which a request has failed.
        key: sent as a bearer token where it is given.
    """

    def __init__(
        self,
        address: str,
        model: str,
        prompt: str,
        answer: str,
        per_second: float = 2.0,
        deadline: float = 120.0,
        key: str = "",
    ) -> None:
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._address, self._model, self._prompt, self._answer = address, model, prompt, answer
        self._pause, self._deadline = 1 / per_second, deadline
        self._turn = threading.Semaphore(IN_FLIGHT)
        self._over = threading.Event()
        self._pace = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._done: list[Request] = []
        self._asking: list[threading.Thread] = []
        self.began = self.ended = 0.0

    def __enter__(self) -> Traffic:
        self.began = time.time()
        self._pace.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send no more, and wait for what is on its way."""
        self._over.set()
        self._pace.join()
        for thread in self._asking:
            thread.join(self._deadline + 10)
        self.ended = time.time()

    @property
    def requests(self) -> tuple[Request, ...]:
        """Those that have ended, in the order they were sent."""
        return tuple(sorted(self._done, key=lambda request: request.n))

    @property
    def failed(self) -> tuple[Request, ...]:
        return tuple(request for request in self.requests if request.failure)

    def answered_since(self, moment: float) -> int:
        """Requests sent after ``moment`` (Unix seconds) that were answered."""
        return sum(request.at >= moment and not request.failure for request in self._done)

    def summary(self) -> str:
        took = sorted(request.seconds for request in self.requests) or [0.0]
        return (
            f"{len(took)} requests in {self.ended - self.began:.0f} s, {len(self.failed)} failed; seconds: median "
            f"{took[len(took) // 2]:.2f}, p99 {took[int(len(took) * 0.99)]:.2f}, longest {took[-1]:.2f}"
        )

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            self._turn.acquire()
            thread = threading.Thread(target=self._ask, args=(len(self._asking),), daemon=True)
            self._asking.append(thread)
            thread.start()
            due = max(due + self._pause, time.monotonic())
            self._over.wait(due - time.monotonic())

    def _ask(self, n: int) -> None:
        at, began = time.time(), time.monotonic()
        status, failure = 0, ""
        try:
            status, text = self._complete(stream=n % 2 == 1, tokens=200 if n % LONG == LONG - 1 else 48)
            if status != 200 or self._answer not in text:
                failure = f"status {status}: {text[:200]!r}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = f"{type(error).__name__}: {error}"
        finally:
            self._done.append(Request(n, at, round(time.monotonic() - began, 3), status, failure))
            self._turn.release()

    def _complete(self, stream: bool, tokens: int) -> tuple[int, str]:
        asked = {"model": self._model, "prompt": self._prompt, "temperature": 0, "max_tokens": tokens, "stream": stream}
        connection = http.client.HTTPConnection(self._address, timeout=self._deadline)
        try:
            connection.request("POST", "/v1/completions", json.dumps(asked), self._headers)
            reply = connection.getresponse()
            body = reply.read().decode("utf-8", "replace")
        finally:
            connection.close()
        if reply.status != 200:
            return reply.status, body
        return 200, streamed(body) if stream else str(json.loads(body)["choices"][0]["text"])


def streamed(body: str) -> str:
    """The text of a streamed completion.

    Raises:
        ValueError: it broke off.
    """
    events = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        raise ValueError(f"the stream broke off after {len(events)} events")
    return "".join(choice["text"] for event in events[:-1] for choice in json.loads(event).get("choices", []))


# -- the router's log -------------------------------------------------------------------------------------------------

_CHANGE = re.compile(
    r"^Server replicas/(?P<replica>\S+) (?P<what>enters drain state|is (?:UP|DOWN|going DOWN)\b[^,.]*)"
)
_ACTIVE = re.compile(r"\. (?P<active>\d+) active and \d+ backup servers (?:left|online)")


@dataclasses.dataclass(frozen=True)
class Change:
    """A server enters or leaves rotation: when (Unix seconds), which, in HAProxy's text, and how many are left in it.

    A server whose check passes while it is drained gets no requests: that is no change.
    """

    at: float
    replica: str
    enters: bool
    what: str
    left: int


@dataclasses.dataclass(frozen=True)
class Served:
    """A request: when it was logged, its path, status, the replica that got it, and how many were ready by then."""

    at: float
    path: str
    status: int
    replica: str
    ready: int


@dataclasses.dataclass(frozen=True)
class RouterLog:
    """What HAProxy logged, in order, and which replicas were in rotation in the end."""

    changes: tuple[Change, ...]
    served: tuple[Served, ...]
    rotation: frozenset[str]

    def lowest(self) -> int:
        """The fewest replicas in rotation at any change and at the end of any request."""
        return min([change.left for change in self.changes] + [one.ready for one in self.served])

    def outages(self, until: float) -> tuple[tuple[str, float, float], ...]:
        """Replica, from when, until when it was out of rotation; one that is out at the end is out ``until`` then."""
        found, out = list[tuple[str, float, float]](), dict[str, float]()
        for change in self.changes:
            if not change.enters:
                out[change.replica] = change.at
            elif change.replica in out:
                found.append((change.replica, out.pop(change.replica), change.at))
        found += [(replica, since, until) for replica, since in out.items()]
        return tuple(sorted(found, key=lambda outage: outage[1]))

    def summary(self) -> str:
        """The changes, a line each, as a person reads them."""
        clock = [time.strftime("%H:%M:%S", time.gmtime(change.at)) for change in self.changes]
        return "\n".join(
            f"  {at} {change.replica} {change.what}: {change.left} in rotation"
            for at, change in zip(clock, self.changes, strict=True)
        )


def router_log(lines: Iterable[str], replicas: Iterable[str], since: float, until: float) -> RouterLog:
    """HAProxy's log between two moments (Unix seconds).

    Args:
        lines: ``journalctl -u haproxy -o json``, from its start, as what was before decides what is a change.
        replicas: all of them.
    """
    changes, served = list[Change](), list[Served]()
    down, drained, rotation = set[str](), set[str](), frozenset(replicas)
    for line in lines:
        entry: Mapping[str, Any] = json.loads(line)
        at, text = int(entry["__REALTIME_TIMESTAMP"]) / 1e6, str(entry.get("MESSAGE"))
        if at > until:
            break
        if text.startswith("{") and since <= at:
            one = json.loads(text)
            served.append(Served(at, one["path"], one["status"], one["replica"], one["replicas_ready"]))
        if not (change := _CHANGE.match(text)):
            continue
        replica, what = change["replica"], change["what"]
        if "drain" in what:
            (drained.discard if "leaving" in what else drained.add)(replica)
        if "DOWN" in what:
            down.add(replica)
        elif "UP" in what:
            down.discard(replica)
        now = frozenset(replicas) - down - drained
        if now != rotation and since <= at:
            counted = _ACTIVE.search(text)
            left = int(counted["active"]) if counted else len(now)
            changes.append(Change(at, replica, replica in now, what, left))
        rotation = now
    return RouterLog(tuple(changes), tuple(served), rotation)


def shares(served: Sequence[Served]) -> dict[str, int]:
    """How many requests each replica got."""
    return dict(sorted(collections.Counter(one.replica for one in served).items()))
