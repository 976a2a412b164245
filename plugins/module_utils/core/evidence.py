"""Evidence of a hang or failure, saved in a folder before anything is ended.

Everything here is bounded in time and never raises: a gate that cannot gather evidence still gives its verdict.
"""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

from . import processes
from .system import kernel_records, read_text

PY_SPY = Path("/opt/lockstep/runtime/current/bin/py-spy")
BUDGET = 2.5
"""Seconds that all evidence together may take."""
DRIVER_BUDGET = 15.0
"""The same for a driver that failed: nvidia-smi takes its time where no daemon keeps the GPUs awake."""
KERNEL_LINES = 200
LOG_LIMIT = 256 << 10
MOST_BUILD_LOGS = 4
MODULE_NAMES = ("nvidia", "nvidia-current", "nvidia-current-open")
"""Names of the driver's module as a file: NVIDIA's and Ubuntu's, and Debian's two, where ``modinfo nvidia`` always fails."""
MOST_PROCESSES = 64


def collect(pids: Iterable[int], folder: Path, *, budget: float = BUDGET) -> tuple[str, ...]:
    """Save the stacks of ``pids``, without ending them, the kernel's messages and nvidia-smi's state.

    Python stacks come from py-spy, where it is installed and allowed. As a floor a Python process that handles SIGUSR1
    is sent it (``faulthandler.register(signal.SIGUSR1)`` then writes its stacks to its own standard error), and the
    kernel's view of every thread is saved.

    Args:
        pids: the processes.
        folder: where the files go; made when missing.
        budget: seconds that this may take.

    Returns:
        The absolute paths of the files written.
    """
    tree = list(pids)
    return _gather(
        folder,
        budget,
        _stack_commands(tree) + _gpu_commands(),
        [lambda: _kernel_view(tree, folder), lambda: kernel_messages(folder)],
    )


def machine(folder: Path) -> tuple[str, ...]:
    """Save the kernel's messages and nvidia-smi's state; otherwise as ``collect``."""
    return _gather(folder, BUDGET, _gpu_commands(), [lambda: kernel_messages(folder)])


def driver(
    folder: Path, command_output: str = "", *, budget: float = DRIVER_BUDGET, root: Path = Path("/")
) -> tuple[str, ...]:
    """Save what the driver of this host leaves behind when its change or its gate has failed.

    The ends of apt's terminal log and of DKMS' newest build logs are copied, as the next change writes over them. With them
    go DKMS' state, the module that modprobe would take, the kernel's messages and nvidia-smi's state.

    Args:
        folder: where the files go; made when missing.
        command_output: of the command that failed.
        budget: seconds that this may take.
        root: below which the logs lie.

    Returns:
        The absolute paths of the files written.
    """
    asked = [
        ("dkms.txt", ["dkms", "status"]),
        ("modprobe.txt", ["modprobe", "-D", "nvidia"]),
        ("modinfo.txt", ["modinfo", *MODULE_NAMES]),
        ("alternatives.txt", ["update-alternatives", "--query", "nvidia"]),
    ]
    commands = [(name, argv) for name, argv in asked if shutil.which(argv[0])]
    return _gather(
        folder,
        budget,
        commands + _gpu_commands(),
        [
            lambda: output(folder, "command.log", command_output),
            lambda: _ends_of(folder, _driver_logs(root)),
            lambda: kernel_messages(folder),
        ],
    )


def output(folder: Path, name: str, text: str) -> tuple[str, ...]:
    """Save ``text`` as ``name`` in ``folder`` unless it is empty. Returns the path written, if any."""
    if not text:
        return ()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        with _new(path) as stream:
            stream.write(text.encode("utf-8", "replace"))
    except OSError:
        return ()
    return (str(path),)


def next_folder(top: Path, name: str, kept: int) -> Path:
    """Where the next piece of evidence is to go, by the time and ``name``; the oldest below ``top`` make room for it.

    Raises:
        OSError: ``top`` cannot be made.
    """
    top.mkdir(parents=True, exist_ok=True)
    for old in sorted(top.iterdir())[: -kept + 1]:
        shutil.rmtree(old, ignore_errors=True)
    return top / f"{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%SZ}-{name}"


def _new(path: Path) -> IO[bytes]:
    """A file for evidence, open for writing: for its owner and group alone, as memory's contents may be in it."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    return os.fdopen(handle, "wb")


def kernel_messages(folder: Path) -> tuple[str, ...]:
    """Save the last of the kernel's messages as ``kernel.log``; nothing where they may not be read."""
    records = kernel_records()
    return output(folder, "kernel.log", "\n".join(records[-KERNEL_LINES:]) + "\n" if records else "")


def _driver_logs(root: Path) -> list[tuple[str, Path]]:
    """Logs of the driver's packages and builds, and the names under which they are kept."""
    builds = root / "var/lib/dkms"
    made = sorted(builds.glob("nvidia*/**/make.log"), key=_changed, reverse=True)[:MOST_BUILD_LOGS]
    named = [("dkms-" + "-".join(path.relative_to(builds).parts), path) for path in made]
    return [("apt-term.log", root / "var/log/apt/term.log"), *named]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _ends_of(folder: Path, logs: Iterable[tuple[str, Path]]) -> tuple[str, ...]:
    """Save the last ``LOG_LIMIT`` bytes of each of ``logs``."""
    return tuple(path for name, log in logs for path in output(folder, name, _end_of(log)))


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(max(stream.seek(0, os.SEEK_END) - LOG_LIMIT, 0))
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _stack_commands(pids: Sequence[int]) -> list[tuple[str, list[str]]]:
    pythons = [pid for pid in list(pids)[:MOST_PROCESSES] if _is_python(pid)]
    for pid in pythons:
        if processes.catches(pid, signal.SIGUSR1):
            processes.send(pid, signal.SIGUSR1)
    py_spy = str(PY_SPY) if PY_SPY.exists() else shutil.which("py-spy")
    if not py_spy:
        return []
    return [(stack_name(pid), [py_spy, "dump", *_unpaused(pid), "--pid", str(pid)]) for pid in pythons]


def stack_name(pid: int) -> str:
    """The file in an evidence folder that holds py-spy's stacks of a process."""
    return f"stack.{pid}.txt"


def _unpaused(pid: int) -> list[str]:
    """py-spy cannot pause a process that is stopped already, and gives nothing of it unless it is asked not to."""
    found = processes.read(pid)
    return ["--nonblocking"] if found is not None and found.stopped else []


def _is_python(pid: int) -> bool:
    try:
        return "python" in (processes.PROC / str(pid) / "exe").readlink().name
    except OSError:
        return False


def _gpu_commands() -> list[tuple[str, list[str]]]:
    nvidia_smi = shutil.which("nvidia-smi")
    if not nvidia_smi:
        return []
    apps = "--query-compute-apps=gpu_uuid,pid,process_name,used_memory"
    return [("nvidia-smi.txt", [nvidia_smi, "-q"]), ("gpu-processes.csv", [nvidia_smi, apps, "--format=csv"])]


def _kernel_view(pids: Sequence[int], folder: Path) -> tuple[str, ...]:
    sections = [_threads_of(pid) for pid in list(pids)[:MOST_PROCESSES]]
    return output(folder, "threads.txt", "\n".join(section for section in sections if section))


def _threads_of(pid: int) -> str:
    lines = []
    try:
        tasks = sorted((processes.PROC / str(pid) / "task").iterdir(), key=lambda task: int(task.name))
    except OSError:
        return ""
    for task in tasks:
        try:
            thread = processes.parse_stat((task / "stat").read_text(encoding="utf-8", errors="replace"))
        except (OSError, IndexError, ValueError):
            continue
        waits = read_text(task / "wchan").strip()
        lines.append(f"  thread {thread.pid} {thread.name} state {thread.state} waits in {waits or '?'}")
        kernel_stack = read_text(task / "stack").strip()
        lines += [f"    {frame}" for frame in kernel_stack.splitlines()]
    return f"process {pid}: {processes.command(pid)}\n" + "\n".join(lines) + "\n"


def _gather(
    folder: Path,
    budget: float,
    commands: Sequence[tuple[str, list[str]]],
    steps: Sequence[Callable[[], tuple[str, ...]]],
) -> tuple[str, ...]:
    end = time.monotonic() + budget
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ()
    started = [_start(folder / name, argv) for name, argv in commands]
    written = [path for step in steps for path in step()]
    for item in started:
        if item is not None:
            written += _finish(*item, end)
    return tuple(written)


def _start(path: Path, argv: list[str]) -> tuple[Path, subprocess.Popen[bytes]] | None:
    try:
        with _new(path) as stream:
            return path, subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    except OSError:
        return None


def _finish(path: Path, child: subprocess.Popen[bytes], end: float) -> list[str]:
    try:
        child.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        child.kill()  # not waited for: one stuck in the driver would not end
    return [str(path)] if path.exists() and path.stat().st_size else []
