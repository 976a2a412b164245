"""The vLLM processes of one engine: started together, read, and ended for good, with nothing left behind.

The supervisor is a child subreaper, so whatever vLLM starts stays below the supervisor, also when its parent dies. Ray
workers run under Ray's own unit and are ended by Ray when the engine's job ends.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ..core import evidence, processes
from ..ray import ranks

_KEPT_LINES = 2000
_LOG_BYTES = 64 << 20
_LAST_LINES_SECONDS = 3.0


class EngineProcess:
    """One ``vllm serve`` and all that it starts."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], log: Path) -> None:
        """Start it. Its output goes to ``log`` (turned over at 64 MiB) and to the journal.

        Raises:
            OSError: the program cannot be started or the log not written.
        """
        processes.become_subreaper()
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._first: list[str] = []
        self.started = time.monotonic()
        self._child = subprocess.Popen(
            list(argv), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, cwd=log.parent,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name="engine-log", daemon=True)
        self._reader.start()

    def alive(self) -> bool:
        return self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        return self._child.poll()

    def lines(self) -> list[str]:
        """The first and the last lines that it wrote, up to 2,000 of each."""
        return [*self._first, *list(self._lines)]

    def finish_reading(self, seconds: float = 2.0) -> None:
        """Wait until the log is read to its end, as far as it comes within ``seconds``."""
        self._reader.join(seconds)

    def save_evidence(self, folder: Path) -> tuple[str, ...]:
        """Stacks of all its processes and of Ray's workers on this host, kernel messages, GPU state, and its log.

        It does not survive this: the floor under py-spy, which may not be permitted, is Python's faulthandler, which
        writes every thread's stack into the log at the SIGABRT that ends the process.
        """
        pids = [process.pid for process in processes.below(os.getpid())]
        saved = evidence.collect([*pids, *(pid for pid in ranks.find() if pid not in pids)], folder)
        for pid in pids:
            processes.send(pid, signal.SIGABRT)
            processes.send(pid, signal.SIGCONT)
        self.finish_reading(_LAST_LINES_SECONDS)
        return saved + evidence.output(folder, "engine.log", "\n".join(self.lines()[-_KEPT_LINES:]) + "\n")

    def stop(self, grace: float) -> None:
        """Let it end running requests (SIGTERM) for ``grace`` seconds, then end it for good."""
        if self.alive():
            processes.send(self._child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(grace)
        self.kill()

    def kill(self) -> list[str]:
        """End every process of it at once and reap them. Returns what even SIGKILL did not end, as ``pid name state``."""
        left = processes.end_descendants(spare_from_reaping=self._child.pid)
        self._child.poll()
        self.finish_reading()
        return [str(process) for process in left]

    def _read(self) -> None:
        assert self._child.stdout is not None
        written = 0
        stream = self.log.open("wb")
        for raw in self._child.stdout:
            text = raw.decode("utf-8", "replace").rstrip("\n")
            (self._first if len(self._first) < _KEPT_LINES else self._lines).append(text)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
            written += len(raw)
            if written > _LOG_BYTES:
                stream.close()
                self.log.replace(self.log.with_suffix(".log.1"))
                stream, written = self.log.open("wb"), len(raw)
            stream.write(raw)
            stream.flush()
        stream.close()
