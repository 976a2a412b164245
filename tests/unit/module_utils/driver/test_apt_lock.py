"""apt's locks: who holds them, and waiting for them."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import apt_lock
from tests.unit.module_utils.driver.aptlab import held


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "var/lib/dpkg/lock-frontend"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


@pytest.fixture
def other(lock: Path) -> Iterator[subprocess.Popen[str]]:
    with held(lock) as child:
        yield child


def test_a_free_lock_and_a_missing_one(lock: Path, tmp_path: Path) -> None:
    assert apt_lock.holder(lock) is None
    assert apt_lock.holder(tmp_path / "nothing") is None
    assert apt_lock.wait(0, root=tmp_path, clock=lambda: 7.0) == 0


def test_the_holder_is_named(lock: Path, other: subprocess.Popen[str], tmp_path: Path) -> None:
    assert apt_lock.holder(lock) == other.pid
    with pytest.raises(
        apt_lock.Locked, match=rf"not free within 0 s: /var/lib/dpkg/lock-frontend by pid {other.pid} \(.*python"
    ):
        apt_lock.wait(0, root=tmp_path)


def test_waiting_ends_when_the_lock_is_freed(other: subprocess.Popen[str], tmp_path: Path) -> None:
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        other.kill()
        other.wait()

    assert apt_lock.wait(30, root=tmp_path, clock=lambda: now[0], sleep=sleep) == 1.0


def test_an_own_lock_is_no_obstacle(lock: Path) -> None:
    handle = os.open(lock, os.O_RDWR)
    fcntl.lockf(handle, fcntl.LOCK_EX)
    assert apt_lock.holder(lock) is None
    os.close(handle)
