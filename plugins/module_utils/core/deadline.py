"""Run a command that may hang, so that it always ends: done, failed, or a timeout with evidence.

A small guard process stands between the caller and the command. It is a child subreaper, so nothing that the command
starts can leave its tree; it holds a lifeline to the caller, so the tree also ends when the caller dies; and it owns
the deadline. At the deadline it saves evidence (see ``evidence``), sends SIGTERM, then SIGKILL, and reaps. From the
deadline to the return at most ``EXTRA`` seconds pass. Nothing that the command started outlives it, on success either.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, TypedDict

from . import processes
from .command_parts import PARTS_HANDLE, Part, PartsClock
from .evidence import collect, machine, output

Status = Literal["done", "failed", "timeout", "ended"]

EXTRA = 5.0
"""Seconds after the deadline within which ``run`` has returned."""
TERM_GRACE = 1.0
KILL_GRACE = 1.0
OUTPUT_LIMIT = 8 << 20
"""Bytes of each output stream that are kept: the last ones."""

# The guard imports this very file, from the folder or the module's zip that the caller has it from.
_GUARD = "import importlib, sys; sys.path.insert(0, sys.argv[1]); sys.exit(importlib.import_module(sys.argv[2]).main())"


class Job(TypedDict):
    """What the guard reads from its standard input."""

    argv: list[str]
    parts: list[tuple[float, str | None]]
    env: dict[str, str]
    cwd: str | None
    input: str | None
    user: str | None
    streams: list[int]


class Report(TypedDict, total=False):
    """What the guard answers on its standard output; ``trouble`` is added to the command's standard error."""

    status: Status
    returncode: int | None
    part: int
    trouble: str
    evidence: Sequence[str]
    left: list[str]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: ``done`` (exit status 0), ``failed`` (any other, or it could not be started), ``timeout`` (its deadline
            ended it), ``ended`` (the caller ended it).
        returncode: its exit status, negative for a signal; None where it was ended or never started.
        seconds: wall time from start to end, the saving of evidence included.
        stdout: what it wrote, the last ``OUTPUT_LIMIT`` bytes; on a timeout what it had written so far.
        stderr: likewise.
        evidence: absolute paths of the files saved on a timeout or failure.
        left: what even SIGKILL did not end, as ``pid name state``: processes stuck in the kernel.
        part: the part of its work, counted from 0, in which it ended.
    """

    status: Status
    returncode: int | None
    seconds: float
    stdout: str
    stderr: str
    evidence: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    part: int = 0


def run(
    argv: Sequence[str],
    *,
    deadline: float,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    input: str | None = None,
    evidence: Path | None = None,
    user: str | None = None,
) -> Outcome:
    """Run ``argv`` and return how it ended, at most ``deadline + EXTRA`` seconds from now.

    Args:
        argv: the command and its arguments; no shell.
        deadline: seconds that it may take.
        env: its whole environment; the caller's own when None.
        cwd: its working directory.
        input: what it reads on standard input; /dev/null when None.
        evidence: folder for evidence, made only when there is something to save.
        user: run it as this user (the caller must be root).

    Raises:
        ValueError: the deadline is not positive, or ``argv`` is empty.
    """
    return start(argv, [Part(deadline, evidence)], env=env, cwd=cwd, input=input, user=user).wait()


def start(
    argv: Sequence[str],
    parts: Sequence[Part],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    input: str | None = None,
    user: str | None = None,
) -> Running:
    """Start ``argv`` as ``run`` does and return at once. ``wait`` must be called on the result.

    Args:
        parts: of its work, in their order; a part's time begins when the command tells so (``command_parts.tell``).
    """
    if not argv:
        raise ValueError("argv is empty")
    if not parts:
        raise ValueError("a command has at least one part")
    for part in parts:
        if not part.seconds > 0:
            raise ValueError(f"a deadline is a positive number of seconds, not {part.seconds!r}")
    streams = (tempfile.TemporaryFile(), tempfile.TemporaryFile())  # noqa: SIM115 - wait() closes them
    job: Job = {
        "argv": [str(part) for part in argv],
        "parts": [(part.seconds, None if part.evidence is None else str(part.evidence.absolute())) for part in parts],
        "env": dict(os.environ if env is None else env),
        "cwd": None if cwd is None else os.fspath(cwd),
        "input": input,
        "user": user,
        "streams": [stream.fileno() for stream in streams],
    }
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-c", _GUARD, _import_path(), __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[stream.fileno() for stream in streams],
        start_new_session=True,
    )
    running = Running(child, streams, parts)
    text = json.dumps(job).encode()
    assert child.stdin is not None
    try:
        child.stdin.write(b"%d\n" % len(text) + text)
        child.stdin.flush()
    except BrokenPipeError:  # the guard died at birth: wait() reports its output
        pass
    return running


class Running:
    """A command under its guard."""

    def __init__(
        self, child: subprocess.Popen[bytes], streams: tuple[IO[bytes], IO[bytes]], parts: Sequence[Part]
    ) -> None:
        self._child = child
        self._streams = streams
        self._parts = parts
        self._began = time.monotonic()
        self._limit = self._began + sum(part.seconds for part in parts) + EXTRA

    def end(self) -> None:
        """End the command and all that it started, without evidence; ``wait`` then returns. Any thread may call."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()

    def stdout(self) -> str:
        """What the command has written so far. Safe while another thread waits."""
        return _tail(self._streams[0])

    def wait(self) -> Outcome:
        """Wait for the end, which comes by itself, and give the outcome."""
        try:
            report = self._report()
        finally:
            self.end()
            self._close()
        stdout, stderr = (_tail(stream) for stream in self._streams)
        for stream in self._streams:
            stream.close()
        saved = tuple(report.get("evidence", ()))
        part = report.get("part", 0)
        folder = self._parts[part].evidence
        if folder is not None and report["status"] in ("timeout", "failed"):
            saved += output(folder, "stdout.log", stdout)
            saved += output(folder, "stderr.log", stderr)
        return Outcome(
            report["status"],
            report.get("returncode"),
            round(time.monotonic() - self._began, 3),
            stdout,
            stderr + report.get("trouble", ""),
            saved,
            tuple(report.get("left", ())),
            part,
        )

    def _report(self) -> Report:
        assert self._child.stdout is not None
        ready, _, _ = select.select([self._child.stdout], [], [], max(0.0, self._limit - time.monotonic()))
        if not ready:
            return {"status": "timeout", "trouble": "\nthe guard did not answer in time and was killed"}
        text = self._child.stdout.read()
        try:
            report: Report = json.loads(text)
        except ValueError:
            assert self._child.stderr is not None
            output = self._child.stderr.read().decode("utf-8", "replace")
            return {"status": "failed", "trouble": f"\nthe guard died: {output}"}
        return report

    def _close(self) -> None:
        for _ in range(2):
            try:
                self._child.wait(KILL_GRACE)
                break
            except subprocess.TimeoutExpired:
                self._child.kill()
        for stream in (self._child.stdout, self._child.stderr):
            if stream is not None:
                stream.close()


def guard(job: Job) -> int:
    """The guard's whole life: start the command, watch it, end its tree, report as JSON on standard output."""
    processes.become_subreaper()
    wakeup = _wake_on_children()
    signal.signal(signal.SIGTERM, lambda *_: os.close(0))
    report: Report = {}
    parts = PartsClock([seconds for seconds, _ in job["parts"]])
    try:
        child = _spawn(job, parts)
    except (OSError, KeyError, subprocess.SubprocessError) as error:
        return _answer({"status": "failed", "trouble": f"cannot start {job['argv'][0]}: {error}"})
    report["status"], status = _watch(child.pid, wakeup, parts)
    report["part"] = parts.now
    evidence = job["parts"][parts.now][1]
    folder = Path(evidence) if evidence else None
    if folder is not None and report["status"] == "timeout":
        report["evidence"] = collect([process.pid for process in processes.below(os.getpid())], folder)
    elif folder is not None and report["status"] == "failed":
        report["evidence"] = machine(folder)
    report["returncode"] = status
    report["left"] = [
        str(process) for process in processes.end_descendants(term_grace=TERM_GRACE, kill_grace=KILL_GRACE)
    ]
    child.returncode = status if status is not None else -signal.SIGKILL
    return _answer(report)


def main() -> int:
    """The guard's entry point: reads its job, a length in bytes on a line of its own and then JSON, from standard input."""
    stream = sys.stdin.buffer
    return guard(json.loads(stream.read(int(stream.readline()))))


def _import_path() -> str:
    """The entry of ``sys.path`` from which this module comes: a folder, or the zip that Ansible sends a module in."""
    tail = os.path.join(*__name__.split(".")) + ".py"
    if not __file__.endswith(os.sep + tail):
        raise RuntimeError(f"{__file__} is not {tail} below an import path: the guard cannot be started")
    return __file__[: -len(tail) - 1]


def _spawn(job: Job, parts: PartsClock) -> subprocess.Popen[bytes]:
    account: dict[str, Any] = {}
    if job["user"]:
        record = pwd.getpwnam(job["user"])
        account = {
            "user": record.pw_uid,
            "group": record.pw_gid,
            "extra_groups": os.getgrouplist(record.pw_name, record.pw_gid),
        }
    stdin: Any = subprocess.DEVNULL
    if job["input"] is not None:
        stdin = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the guard
        stdin.write(job["input"].encode())
        stdin.seek(0)
    try:
        return subprocess.Popen(
            job["argv"],
            stdin=stdin,
            stdout=job["streams"][0],
            stderr=job["streams"][1],
            env={**job["env"], PARTS_HANDLE: str(parts.writer)} if parts.several else job["env"],
            cwd=job["cwd"],
            pass_fds=[parts.writer] if parts.several else [],
            start_new_session=True,
            **account,
        )
    finally:
        os.close(parts.writer)


def _wake_on_children() -> int:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def _watch(pid: int, wakeup: int, parts: PartsClock) -> tuple[Status, int | None]:
    """Wait for the command, a part's deadline, or the caller's end. Returns the status and the command's exit status."""
    poller = select.poll()
    poller.register(0, select.POLLHUP | select.POLLERR | select.POLLNVAL)
    poller.register(wakeup, select.POLLIN)
    poller.register(parts.reader, select.POLLIN)
    while True:
        status = _reap(pid)
        if status is not None:
            return ("failed" if status else "done"), status
        remaining = parts.end - time.monotonic()
        if remaining <= 0:
            return "timeout", None
        for handle, _ in poller.poll(min(remaining, 60.0) * 1000 + 1):
            if handle == wakeup:
                _drain(wakeup)
            elif handle == parts.reader:
                if not parts.read():
                    poller.unregister(parts.reader)
            else:
                return "ended", None


def _drain(handle: int) -> None:
    try:
        while os.read(handle, 4096):
            pass
    except BlockingIOError:
        pass


def _reap(child: int) -> int | None:
    """Reap every dead child; the exit status of ``child`` if it was among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            found = os.waitstatus_to_exitcode(status)


def _answer(report: Report) -> int:
    sys.stdout.write(json.dumps(report))
    sys.stdout.flush()
    return 0


def _tail(stream: IO[bytes]) -> str:
    handle = stream.fileno()
    size = os.fstat(handle).st_size
    raw = os.pread(handle, OUTPUT_LIMIT, max(0, size - OUTPUT_LIMIT))
    return raw.decode("utf-8", "replace")
