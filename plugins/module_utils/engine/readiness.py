"""Whether a replica is ready, from the signs of life of its engine; and the HTTP answer ``GET /ready``."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import threading
from collections.abc import Callable

from . import completion
from .states import PROVEN_ENGINE, Phase


@dataclasses.dataclass(frozen=True)
class Signs:
    """What is seen of an engine at one moment.

    Attributes:
        phase: the supervisor's; only SERVING can be ready.
        reason: why the supervisor is in that phase.
        alive: its process runs.
        engine_dead: vLLM itself reports a dead engine (``/health`` is not 200; a 200 means nothing).
        silent_for: seconds since the last proven completion or the last token of real traffic; None before the first.
        failure: why the last completion failed; empty when it did not.
        suspect: who keeps it from generating; empty while that is not known.
    """

    phase: Phase
    reason: str = ""
    alive: bool = True
    engine_dead: bool = False
    silent_for: float | None = None
    failure: str = ""
    suspect: str = ""


@dataclasses.dataclass(frozen=True)
class Readiness:
    """What the signs mean.

    Attributes:
        ready: may be sent traffic.
        wedged: the process runs but generates nothing: it must be restarted.
        reason: why not ready.
        silent: no token comes, for so long that it may get no traffic: time to find out why.
    """

    ready: bool
    wedged: bool = False
    reason: str = ""
    silent: bool = False


def evaluate(signs: Signs, stale: float, wedged: float) -> Readiness:
    """Decide from the signs; ``stale`` and ``wedged`` are seconds without a token."""
    if signs.phase not in PROVEN_ENGINE:
        return Readiness(False, reason=f"{signs.phase}: {signs.reason}" if signs.reason else signs.phase)
    if not signs.alive:
        return Readiness(False, reason="the engine process is gone")
    if signs.silent_for is None:
        return Readiness(False, reason="no completion was proven yet")
    causes = [cause for cause in (signs.suspect, signs.failure) if cause]
    silence = f"no token for {signs.silent_for:.0f} s" + (f": {'; '.join(causes)}" if causes else "")
    if signs.silent_for >= wedged:
        return Readiness(False, wedged=True, reason=silence, silent=True)
    if signs.engine_dead:
        return Readiness(False, reason="vLLM reports a dead engine (/health is not 200)")
    if signs.silent_for >= stale:
        return Readiness(False, reason=silence, silent=True)
    if signs.phase is not Phase.SERVING:
        return Readiness(False, reason=f"draining: {signs.reason}")
    return Readiness(True)


def ask(base_url: str, deadline: float = 5.0) -> tuple[bool, str]:
    """What ``GET /ready`` answers at ``http://host:port``: whether ready, and where not, why that could not be known better.

    Why a replica is not ready stands in its engine.json, which only its host reads: the answer is for whoever asks.
    """
    answer = completion.get(base_url, "/ready", deadline=deadline)
    if answer is None:
        return False, "its supervisor does not answer"
    return answer[0] == 200, "" if answer[0] in (200, 503) else f"its supervisor answers HTTP {answer[0]}"


class _Server(http.server.ThreadingHTTPServer):
    # Of 5, as it is else, a few hundred connections a second left probes of the router a second late.
    request_queue_size = 128


def serve(address: str, port: int, ready: Callable[[], bool]) -> http.server.ThreadingHTTPServer:
    """Answer ``GET /ready`` at ``address:port`` from a thread of its own: 200 or 503, and no more than ``ready()``.

    Raises:
        OSError: the address cannot be listened at.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 5
        server_version = "lockstep"
        sys_version = ""

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # HAProxy hangs up as soon as it has read the status
                super().handle()

        def do_GET(self) -> None:
            if self.path.split("?")[0] != "/ready":
                self.send_error(404)
                return
            is_ready = ready()
            body = json.dumps({"ready": is_ready}).encode() + b"\n"
            self.send_response(200 if is_ready else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """The router asks every few seconds: not worth a line each."""

    server = _Server((address, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="readiness", daemon=True).start()
    return server
