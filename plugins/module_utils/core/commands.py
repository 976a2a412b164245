"""Short commands that may hang, and work in the background: what reading a host's state is made of.

The probe sends this file to every host, so it imports little. ``deadline`` is for commands that must leave nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Value = TypeVar("Value")


class CommandResult(NamedTuple):
    """What a command gave: ``returncode`` is None when it was not found or was ended at its deadline."""

    returncode: int | None
    stdout: str = ""
    stderr: str = ""
    timed_out: bool = False
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.returncode == 0


Run = Callable[[Sequence[str], float], CommandResult]


def run_command(argv: Sequence[str], deadline: float) -> CommandResult:
    """Run ``argv`` for at most ``deadline`` seconds; a child that cannot be killed (stuck in the driver) is left."""
    start = time.monotonic()
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        return CommandResult(None, stderr=str(error))
    try:
        out, err = child.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        _end(child)
        return CommandResult(None, timed_out=True, seconds=time.monotonic() - start)
    return CommandResult(
        child.returncode,
        out.decode("utf-8", "replace"),
        err.decode("utf-8", "replace"),
        seconds=time.monotonic() - start,
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    for stream in (child.stdout, child.stderr):
        if stream:
            stream.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=0.5)


def in_background(function: Callable[[], Value]) -> Callable[[], Value]:
    """Call ``function`` in a thread of its own; what is returned waits for it, and returns or raises what it did.

    A pool of ``concurrent.futures`` would do, but importing that takes longer than most of what is read.
    """
    results: list[Value] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()

    def result() -> Value:
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    return result


def together(works: Mapping[str, Callable[[], Value]]) -> dict[str, Value]:
    """Run all at once; what each returned, by its name."""
    begun = {name: in_background(work) for name, work in works.items()}
    return {name: result() for name, result in begun.items()}
