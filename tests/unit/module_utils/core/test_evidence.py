"""What is kept of a driver that failed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import evidence


def put(path: Path, text: str, at: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (at, at))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dkms answers, nvidia-smi hangs as it does on a dead GPU, and there is no modinfo."""
    for name, does in {"dkms": "echo nvidia/550.90.07: added", "nvidia-smi": "exec /bin/sleep 60"}.items():
        put(tmp_path / "bin" / name, f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def test_logs_that_the_next_change_would_write_over_are_copied(tmp_path: Path, tools: None) -> None:
    root = tmp_path / "root"
    put(root / "var/log/apt/term.log", "x" * evidence.LOG_LIMIT + "the end")
    for number in range(evidence.MOST_BUILD_LOGS + 1):
        put(root / f"var/lib/dkms/nvidia/550.9{number}.07/build/make.log", f"error {number}", at=number)
    put(root / "var/lib/dkms/zfs/2.3/build/make.log", "of no interest", at=99)
    saved = [
        Path(path) for path in evidence.driver(tmp_path / "kept", "Error! Bad return status", budget=1.0, root=root)
    ]
    kept = {path.name: path.read_text(encoding="utf-8") for path in saved}
    assert kept["apt-term.log"].endswith("xthe end")
    assert len(kept["apt-term.log"]) == evidence.LOG_LIMIT
    assert kept["command.log"] == "Error! Bad return status"
    assert kept["dkms.txt"] == "nvidia/550.90.07: added\n"
    builds = sorted(name for name in kept if name.startswith("dkms-"))
    assert builds == [f"dkms-nvidia-550.9{number}.07-build-make.log" for number in (1, 2, 3, 4)]
    assert {path.parent for path in saved} == {tmp_path / "kept"}


def test_a_host_without_logs_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {Path(path).name for path in evidence.driver(tmp_path / "kept", root=tmp_path)} <= {"kernel.log"}
    (tmp_path / "occupied").write_text("a file where the folder should be")
    assert evidence.driver(tmp_path / "occupied", "logs", root=tmp_path) == ()
