"""What is kept of a driver that failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import evidence
from tests.machine import ENDLESS, PATIENCE


def put(path: Path, text: str, at: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (at, at))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dkms answers, and nvidia-smi hangs as it does on a dead GPU. The time for evidence is over once all others have answered."""
    kept = [tmp_path / "kept" / name for name in ("dkms.txt", "modprobe.txt", "modinfo.txt", "alternatives.txt")]
    answered = lambda: all(path.exists() and path.read_text().endswith("\n") for path in kept)  # noqa: E731
    monkeypatch.setattr(evidence, "time", types.SimpleNamespace(monotonic=lambda: PATIENCE if answered() else 0.0))
    for name, does in {
        "dkms": "echo nvidia/550.90.07: added",
        "modprobe": 'echo "$@"',
        "modinfo": 'echo "$@"',
        "update-alternatives": 'echo "$@"',
        "nvidia-smi": f"exec /bin/sleep {ENDLESS}",
    }.items():
        put(tmp_path / "bin" / name, f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def test_logs_that_the_next_change_would_write_over_are_copied(tmp_path: Path, tools: None) -> None:
    root = tmp_path / "root"
    put(root / "var/log/apt/term.log", "x" * evidence.LOG_LIMIT + "the end")
    for number in range(evidence.MOST_BUILD_LOGS + 1):
        put(root / f"var/lib/dkms/nvidia/550.9{number}.07/build/make.log", f"error {number}", at=number)
    put(root / "var/lib/dkms/zfs/2.3/build/make.log", "of no interest", at=99)
    said = "Error! Bad return status"
    saved = [Path(path) for path in evidence.driver(tmp_path / "kept", said, budget=PATIENCE, root=root)]
    kept = {path.name: path.read_text(encoding="utf-8") for path in saved}
    assert kept["apt-term.log"].endswith("xthe end")
    assert len(kept["apt-term.log"]) == evidence.LOG_LIMIT
    assert kept["command.log"] == "Error! Bad return status"
    assert kept["dkms.txt"] == "nvidia/550.90.07: added\n"
    # On Debian no file is called nvidia.ko: what would be loaded stands in the chosen alternative.
    assert kept["modprobe.txt"] == "-D nvidia\n"
    assert kept["modinfo.txt"] == "nvidia nvidia-current nvidia-current-open\n"
    assert kept["alternatives.txt"] == "--query nvidia\n"
    builds = sorted(name for name in kept if name.startswith("dkms-"))
    assert builds == [f"dkms-nvidia-550.9{number}.07-build-make.log" for number in (1, 2, 3, 4)]
    assert {path.parent for path in saved} == {tmp_path / "kept"}


@pytest.mark.parametrize("stopped", [True, False])
def test_py_spy_does_not_try_to_pause_what_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    """py-spy 0.4.3 gives no stacks of a stopped process: ``unexpected waitpid result PtraceEvent``."""
    put(tmp_path / "py-spy", '#!/bin/sh\necho "$@"\n')
    (tmp_path / "py-spy").chmod(0o755)
    monkeypatch.setattr(evidence, "PY_SPY", tmp_path / "py-spy")
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({ENDLESS})"])
    try:
        if stopped:
            os.kill(child.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        saved = evidence.collect([child.pid], tmp_path / "kept", budget=PATIENCE)
    finally:
        child.kill()
        child.wait()
    (stack,) = (Path(path) for path in saved if path.endswith(evidence.stack_name(child.pid)))
    assert stack.read_text() == f"dump {'--nonblocking ' if stopped else ''}--pid {child.pid}\n"


def test_a_host_without_logs_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {Path(path).name for path in evidence.driver(tmp_path / "kept", root=tmp_path)} <= {"kernel.log"}
    (tmp_path / "occupied").write_text("a file where the folder should be")
    assert evidence.driver(tmp_path / "occupied", "logs", root=tmp_path) == ()
