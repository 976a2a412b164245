"""Running other programs: with their error as ours, as root where that is needed, and a clock for what takes long."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from testbed.lib.errors import TestbedError


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | bytes | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    timeout: float | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command with its output captured as text; raise TestbedError with the tail of that output when it fails.

    ``environment`` is added to this process's own; ``timeout`` is in seconds.
    """
    argv = [str(part) for part in command]
    data = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = subprocess.run(
            argv,
            input=data or b"",
            capture_output=True,
            cwd=directory,
            timeout=timeout,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except FileNotFoundError:
        raise TestbedError(f"{argv[0]}: not installed") from None
    except subprocess.TimeoutExpired:
        raise TestbedError(f"{' '.join(argv[:4])} …: no end after {timeout:.0f} s") from None
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if check and done.returncode:
        tail = "\n".join((err.strip() or out.strip()).splitlines()[-12:])
        raise TestbedError(f"{' '.join(argv[:6])}{' …' if len(argv) > 6 else ''}: exit {done.returncode}\n{tail}")
    return subprocess.CompletedProcess(argv, done.returncode, out, err)


def become_root(arguments: Sequence[str]) -> None:
    """Containers with fixed addresses need root: run this command again through sudo, which asks once."""
    if os.geteuid() == 0:
        return
    if not shutil.which("sudo"):
        raise TestbedError("the testbed needs root: run it as root, or install sudo")
    keep = ",".join(
        name
        for name in os.environ
        if name in {"PATH", "HOME"} or name.startswith(("LOCKSTEP_", "PIP_", "UV_")) or name.lower().endswith("_proxy")
    )
    os.execvp("sudo", ["sudo", f"--preserve-env={keep}", sys.executable, *arguments])


def give_back(*paths: Path) -> None:
    """Under sudo, leave what we wrote in the checkout to the person who called."""
    uid = os.environ.get("SUDO_UID")
    if uid and os.geteuid() == 0:
        existing = [path for path in paths if path.exists()]
        if existing:
            run(["chown", "-R", f"{uid}:{os.environ.get('SUDO_GID', uid)}", *existing])


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is being done and, afterwards, how long it took."""
    start = time.monotonic()
    try:
        yield
    finally:
        print(f"  {title}: {time.monotonic() - start:.1f} s", flush=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock file: of two commands that would change the same things, one waits for the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"  another testbed command is at work; waiting for it ({path})", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
