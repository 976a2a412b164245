"""What a test sees of a replica from outside: clients that retry, and the router's answer on whether it may be asked."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
import urllib.error
import urllib.request
from types import TracebackType

from tests.e2e.lab import Lab

PORT = 8080
ATTEMPT = 45.0
"""Seconds that a client waits for one answer before it asks again."""
PAUSE = 0.5
"""Seconds between two attempts, and between an answer and the next request."""
PATIENCE = 420.0
"""Seconds after which a client gives a request up for lost."""
SAMPLE_PERIOD = 0.2
"""Seconds between two samples of the router's own health."""


@dataclasses.dataclass
class Request:
    """One request of a client, with every attempt at it. Moments are seconds since the epoch."""

    began: float
    answered: float | None = None
    text: str = ""
    failures: list[str] = dataclasses.field(default_factory=list)

    @property
    def seconds(self) -> float:
        return (self.answered or time.time()) - self.began


class Traffic:
    """Clients that each send one request after the other through the router and repeat it until it is answered; and
    a thread that samples meanwhile whether the router has a replica that is ready."""

    def __init__(self, lab: Lab, clients: int = 2, max_tokens: int = 8) -> None:
        self._url = f"http://{lab.address('router1')}:{PORT}"
        prompt = lab.facts()["proof_prompt"]
        body = {"model": "tiny", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        self._body = json.dumps(body).encode()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        self._watch = threading.Thread(target=self._sample_health, daemon=True)
        self._changes: list[tuple[float, bool]] = []
        self.requests: list[Request] = []

    def __enter__(self) -> Traffic:
        self._watch.start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """No new requests; those under way are seen to their end, unless the test has failed already."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE if kind is None else 1)

    def answered(self) -> int:
        return len(self.requests) - len(self.lost())

    def lost(self) -> list[Request]:
        """Requests without an answer: once the traffic is over, those that were lost."""
        return [request for request in self.requests if request.answered is None]

    def summary(self) -> str:
        retried = [request for request in self.requests if request.failures]
        longest = max((request.seconds for request in self.requests), default=0.0)
        failed = sum(len(request.failures) for request in retried)
        return (
            f"{self.answered()} of {len(self.requests)} requests answered, {len(retried)} of them after {failed} failed "
            f"attempts in all, the slowest after {longest:.0f} s"
        )

    def wait_until(self, ready: bool, since: float, deadline: float) -> float:
        """The moment after ``since`` at which the router first had a ready replica, or none any more.

        Raises:
            AssertionError: not within ``deadline`` seconds of ``since``.
        """
        while True:
            found = next((at for at, was in list(self._changes) if at >= since and was == ready), None)
            if found is not None:
                assert found - since <= deadline, f"took {found - since:.1f} s, allowed are {deadline:.0f}"
                return found
            if time.time() - since > deadline:
                raise AssertionError(f"the router has {'no' if ready else 'a'} ready replica {deadline:.0f} s later")
            time.sleep(SAMPLE_PERIOD / 2)

    def _sample_health(self) -> None:
        last: bool | None = None
        while not self._over.is_set():
            now = self._healthy()
            if now != last:
                self._changes.append((time.time(), now))
                last = now
            time.sleep(SAMPLE_PERIOD)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/health", timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def _client(self) -> None:
        while not self._over.is_set():
            request = Request(time.time())
            self.requests.append(request)
            while request.answered is None and request.seconds < PATIENCE:
                try:
                    request.text = self._ask()
                    request.answered = time.time()
                except (OSError, ValueError, LookupError) as error:
                    request.failures.append(f"{type(error).__name__}: {error}")
                time.sleep(PAUSE)

    def _ask(self) -> str:
        """One attempt. Raises OSError, ValueError or LookupError where there is no answer."""
        asked = urllib.request.Request(f"{self._url}/v1/completions", self._body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=ATTEMPT) as reply:
            return str(json.load(reply)["choices"][0]["text"])
