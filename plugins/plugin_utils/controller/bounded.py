"""Jobs on hosts, each with a deadline and a limit to what it may answer: none can hold up or drown another.

A connection plugin reads what its process (ssh, a local shell) prints until that ends, all of it. Here that process is one
that counts: beyond the limit, and at the deadline, it is killed, and the job is over for its host alone.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import queue
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

CHUNK = 1 << 16
GRACE = 2.0
"""Seconds that a job has to end by itself once its process was killed; then it is left behind."""
T = TypeVar("T")
_here = threading.local()


class Late(Exception):
    """The deadline of a job has passed."""


class TooMuch(Exception):
    """A job was answered more than its limit."""


class Watch:
    """One job's deadline, its limit, and what has come of both.

    Args:
        seconds: until the deadline, from now; ``math.inf`` for none.
        limit: bytes that its processes may print, standard error included.
    """

    def __init__(self, seconds: float, limit: int) -> None:
        self.seconds = seconds
        self.limit = limit
        self.ends = time.monotonic() + seconds
        self.late = False
        self.too_much = False
        self.left_behind = False
        self._read = 0
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def left(self) -> float:
        """Seconds to the deadline; 0 after it."""
        return max(self.ends - time.monotonic(), 0.0)

    @property
    def timeout(self) -> float | None:
        """The same as what waits takes it: None where there is no deadline."""
        return None if math.isinf(self.ends) else self.left

    def started(self, process: subprocess.Popen[bytes]) -> None:
        """The job started a process; at its end it is killed."""
        self._processes.append(process)
        if self.late or self.too_much:
            self.kill()

    def count(self, size: int) -> None:
        """The job was answered so many bytes more.

        Raises:
            Late: its deadline has passed.
            TooMuch: that is more than its limit.
        """
        self._read += size
        if self._read > self.limit:
            self.too_much = True
            self.kill()
            raise TooMuch
        if self.late or not self.left:
            self.expire()
            raise Late

    def expire(self) -> None:
        """The deadline has passed."""
        self.late = True
        self.kill()

    def kill(self) -> None:
        """End the job's processes."""
        for process in self._processes:
            with contextlib.suppress(OSError):
                process.kill()

    def over(self) -> None:
        """The job has ended: nobody reads what its processes, or what these left, may still print."""
        for process in self._processes:
            for stream in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
            process.poll()


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Processes that this thread starts by way of :data:`subprocess_that_counts` are those of ``watch``."""
    _here.watch = watch
    try:
        yield
    finally:
        _here.watch = None
        watch.over()


def limited(method: Callable[..., T], limit: int, too_much: Callable[[Any], Exception]) -> Callable[..., T]:
    """A connection's method, whose processes may print ``limit`` bytes in each call; within a job, the job's limit counts.

    Args:
        too_much: the error for a connection whose host answered more, in place of what its plugin makes of that.
    """

    @functools.wraps(method)
    def called(connection: Any, *arguments: Any, **named: Any) -> T:
        if getattr(_here, "watch", None) is not None:
            return method(connection, *arguments, **named)
        watch = Watch(math.inf, limit)
        try:
            with watched(watch):
                result = method(connection, *arguments, **named)
        except Exception:
            if not watch.too_much:
                raise
        if watch.too_much:
            raise too_much(connection)
        return result

    return called


class _Counted:
    """A pipe from a process whose bytes are counted as they are read; what a connection plugin uses of a file."""

    def __init__(self, stream: Any, watch: Watch) -> None:
        self._stream = stream
        self._watch = watch

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def read(self, size: int = CHUNK) -> bytes:
        """What is there, at most ``size`` bytes; nothing at the end, or where nothing is there yet and none waits."""
        try:
            chunk = os.read(self.fileno(), min(size, CHUNK) if size > 0 else CHUNK)
        except BlockingIOError:
            return b""
        self._watch.count(len(chunk))
        return chunk

    @property
    def closed(self) -> bool:
        return bool(self._stream.closed)

    def close(self) -> None:
        self._stream.close()


class _Process(subprocess.Popen[bytes]):
    """A process of the job of this thread, with its deadline and its limit; any other process is as always."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._watch: Watch | None = getattr(_here, "watch", None)
        super().__init__(*arguments, **named)
        if self._watch is not None:
            self._watch.started(self)
            self.stdout = self._counted(self.stdout, self._watch)
            self.stderr = self._counted(self.stderr, self._watch)

    @staticmethod
    def _counted(stream: Any, watch: Watch) -> Any:
        return None if stream is None else _Counted(stream, watch)

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        watch = self._watch
        if watch is None:
            return super().communicate(input, timeout)
        outputs: dict[Any, list[bytes]] = {stream: [] for stream in (self.stdout, self.stderr) if stream is not None}
        ahead = memoryview(input or b"")
        with selectors.DefaultSelector() as selector:
            for stream in outputs:
                selector.register(stream, selectors.EVENT_READ)
            if self.stdin is not None:
                os.set_blocking(self.stdin.fileno(), False)
                selector.register(self.stdin, selectors.EVENT_WRITE)
            while selector.get_map():
                for key, _events in selector.select(watch.timeout):
                    if key.fileobj is self.stdin:
                        ahead = self._sent(ahead)
                        over = not ahead
                    else:
                        chunk: bytes = key.fileobj.read()  # type: ignore[union-attr]
                        outputs[key.fileobj].append(chunk)
                        over = not chunk
                    if over:
                        selector.unregister(key.fileobj)
                        with contextlib.suppress(OSError):
                            key.fileobj.close()  # type: ignore[union-attr]
                watch.count(0)
        try:
            self.wait(watch.timeout)
        except subprocess.TimeoutExpired:
            watch.expire()
            raise Late from None
        return tuple(b"".join(outputs.get(stream, [])) for stream in (self.stdout, self.stderr))  # type: ignore[return-value]

    def _sent(self, ahead: memoryview) -> memoryview:
        try:
            return ahead[os.write(self.stdin.fileno(), ahead[:CHUNK]) :]  # type: ignore[union-attr]
        except BlockingIOError:
            return ahead
        except OSError:
            return ahead[:0]  # it reads no more: its exit status says the rest


class SubprocessThatCounts:
    """In place of the module ``subprocess`` in a connection plugin: its Popen is ours, all else is the module's."""

    Popen = _Process

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)


subprocess_that_counts = SubprocessThatCounts()


def run(
    jobs: Iterable[tuple[str, Callable[[Watch], T]]],
    late: Callable[[Watch], T],
    threads: int,
    seconds: float,
    limit: int,
) -> dict[str, T]:
    """What each host's job returns, in the order of the jobs; jobs run while later ones are still made.

    Args:
        jobs: host and job, which gets its watch. What a job raises is raised here.
        late: what stands for a job that does not even end when its processes are killed.
        threads: jobs at once.
        seconds: the deadline of each, from its own beginning.
        limit: bytes of output of each.
    """
    waiting: queue.SimpleQueue[tuple[str, Callable[[Watch], T]] | None] = queue.SimpleQueue()
    changed = threading.Condition()
    running: dict[str, Watch] = {}
    done: dict[str, T | BaseException] = {}

    def work() -> None:
        while (next_job := waiting.get()) is not None:
            host, job = next_job
            watch = Watch(seconds, limit)
            with changed:
                running[host] = watch
            result: T | BaseException
            try:
                result = job(watch)
            except BaseException as error:
                result = error
            with changed:
                if watch.left_behind:
                    return
                running.pop(host)
                done[host] = result
                changed.notify()

    def start() -> None:
        threading.Thread(target=work, daemon=True).start()  # a thread that is left behind must not keep the process

    order: list[str] = []
    try:
        for host, job in jobs:
            order.append(host)
            waiting.put((host, job))
            if len(order) <= max(1, threads):
                start()
        with changed:
            while len(done) < len(order):
                for host, watch in [each for each in running.items() if not each[1].left]:
                    if not watch.late:
                        watch.expire()
                    elif time.monotonic() >= watch.ends + GRACE:
                        watch.left_behind = True
                        running.pop(host)
                        done[host] = late(watch)
                        start()
                if len(done) < len(order):
                    soonest = min((watch.ends + GRACE * watch.late for watch in running.values()), default=None)
                    # A job that no thread has taken yet has no deadline of its own: look again.
                    changed.wait(1.0 if soonest is None else min(max(soonest - time.monotonic(), 0.01), 1.0))
    finally:
        for _each in range(len(order) + 1):
            waiting.put(None)
    for result in done.values():
        if isinstance(result, BaseException):
            raise result
    return {host: done[host] for host in order}  # type: ignore[misc]
