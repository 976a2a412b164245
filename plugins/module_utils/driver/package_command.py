"""Running a command of apt or dpkg: with a deadline, without questions, its failure explained by its own error lines."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from ..core.system import read_text
from . import package_causes


class StepFailed(Exception):
    """A step on the host failed; the message gives the cause, ``log`` the output of the command, ``next`` the next one."""

    def __init__(self, message: str, log: str = "", next: str = "") -> None:
        super().__init__(message)
        self.log = log
        self.next = next


def package_command(argv: Sequence[str], deadline: float, what: str, folder: str | None = None, given: str = "") -> str:
    """Run a command that changes packages, in ``folder`` where one is given; it reads ``given``.

    At its deadline it is asked to end before it is killed, as dpkg deserves.
    """
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1",
                   "APT_LISTCHANGES_FRONTEND": "none"}  # fmt: skip
    with _scratch() as output, _scratch() as source:
        source.write(given)
        source.seek(0)
        child = subprocess.Popen(list(argv), stdin=source, stdout=output, stderr=subprocess.STDOUT,
                                 env=environment, start_new_session=True, cwd=folder)  # fmt: skip
        try:
            code: int | None = child.wait(timeout=deadline)
        except subprocess.TimeoutExpired:
            _stop(child)
            code = None
        output.seek(0)
        text = output.read()
    if code == 0:
        return text
    reason = f"ended at its deadline of {deadline:g} s" if code is None else failure_reason(text, code)
    raise StepFailed(f"{what}: {reason}", text)


def _scratch() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")


def failure_reason(text: str, code: int, read: Callable[[Path], str] = read_text) -> str:
    """Why apt, dpkg or DKMS failed, with the compiler's error from the log that DKMS points at; else the exit status."""
    found = [
        package_causes.with_build_log(cause, read(Path(cause.log))) if cause.log else cause
        for cause in package_causes.of_packages(text)
    ]
    return "; ".join(cause.text for cause in found) or f"exit status {code}"


def _stop(child: subprocess.Popen[Any]) -> None:
    for sign, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 2.0)):
        with contextlib.suppress(OSError):
            os.killpg(child.pid, sign)
        try:
            child.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            continue
        return
