"""apt's locks: who holds them, and waiting for them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import apt_lock

HOLD = "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.lockf(f,fcntl.LOCK_EX); print('held',flush=True); time.sleep(60)"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "var/lib/dpkg/lock-frontend"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


@pytest.fixture
def other(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, as apt does."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_a_free_lock_and_a_missing_one(lock: Path, tmp_path: Path) -> None:
    assert apt_lock.holder(lock) is None
    assert apt_lock.holder(tmp_path / "nothing") is None
    assert apt_lock.wait(0, root=tmp_path) < 1


def test_the_holder_is_named(lock: Path, other: subprocess.Popen[str], tmp_path: Path) -> None:
    assert apt_lock.holder(lock) == other.pid
    with pytest.raises(
        apt_lock.Locked, match=rf"not free within 0 s: /var/lib/dpkg/lock-frontend by pid {other.pid} \(.*python"
    ):
        apt_lock.wait(0, root=tmp_path)


def test_waiting_ends_when_the_lock_is_freed(other: subprocess.Popen[str], tmp_path: Path) -> None:
    def sleep(_seconds: float) -> None:
        other.kill()
        other.wait()

    assert apt_lock.wait(30, root=tmp_path, sleep=sleep) < 5


def test_an_own_lock_is_no_obstacle(lock: Path) -> None:
    handle = os.open(lock, os.O_RDWR)
    fcntl.lockf(handle, fcntl.LOCK_EX)
    assert apt_lock.holder(lock) is None
    os.close(handle)
