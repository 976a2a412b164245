from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils import controller

HERE = {"controller": "ops1", "machine": "m1", "boot": "b1", "namespace": "pid:[1]"}


def lock(pid: int, **other: Any) -> dict[str, Any]:
    return {**controller.identity(pid), "run": "r1", **other}


def test_a_process_that_runs_is_alive() -> None:
    here = controller.identity(os.getpid())
    assert controller.known_alive(lock(os.getpid()), here)
    assert not controller.known_dead(lock(os.getpid()), here)


def test_a_process_that_ended_is_dead() -> None:
    child = subprocess.Popen(["sleep", "60"])
    held = lock(child.pid)
    here = controller.identity(os.getpid())
    assert not controller.known_dead(held, here)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert controller.known_dead(held, here), "its corpse, not yet reaped, is no process"
    child.wait()
    assert controller.known_dead(held, here)
    assert not controller.known_alive(held, here)


def test_a_later_process_with_the_same_id_is_another() -> None:
    assert controller.known_dead(lock(os.getpid(), started=1), controller.identity(os.getpid()))


@pytest.mark.parametrize(
    ("held", "dead"),
    [
        pytest.param({**HERE, "boot": "b0", "pid": 1, "started": 5}, True, id="the machine was rebooted since"),
        pytest.param({**HERE, "namespace": "pid:[2]", "pid": 10**9, "started": 5}, False, id="another container"),
        pytest.param({**HERE, "controller": "ops2", "pid": 10**9, "started": 5}, False, id="another controller"),
        pytest.param({**HERE, "machine": "m2", "boot": "b0", "pid": 10**9}, False, id="a namesake"),
        pytest.param({**HERE, "pid": 10**9, "started": 5}, True, id="no such process"),
        pytest.param({"controller": "ops1", "machine": "m1"}, False, id="a lock that says little"),
        pytest.param({}, False, id="a lock that says nothing"),
    ],
)
def test_known_dead(held: dict[str, Any], dead: bool) -> None:
    assert controller.known_dead(held, HERE) == dead
    assert not controller.known_alive(held, HERE)
