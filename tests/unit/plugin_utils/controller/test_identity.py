from __future__ import annotations

import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import identity

HERE = {"controller": "ops1", "machine": "m1", "boot": "b1", "namespace": "pid:[1]"}


def lock(pid: int, **other: Any) -> dict[str, Any]:
    return {**identity.identity(pid), "run": "r1", **other}


def test_a_process_that_runs_is_alive() -> None:
    here = identity.identity(os.getpid())
    assert identity.known_alive(lock(os.getpid()), here)
    assert not identity.known_dead(lock(os.getpid()), here)


def test_a_process_that_ended_is_dead() -> None:
    child = subprocess.Popen(["sleep", "60"])
    held = lock(child.pid)
    here = identity.identity(os.getpid())
    assert not identity.known_dead(held, here)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identity.known_dead(held, here), "its corpse, not yet reaped, is no process"
    child.wait()
    assert identity.known_dead(held, here)
    assert not identity.known_alive(held, here)


def test_a_later_process_with_the_same_id_is_another() -> None:
    assert identity.known_dead(lock(os.getpid(), started=1), identity.identity(os.getpid()))


@pytest.mark.parametrize(("name", "least"), [("ansible-playbook", 0.5), ("pytest", 0.0)])
def test_for_how_long_the_command_has_run(tmp_path: Path, name: str, least: float) -> None:
    """Of a process that is long-lived and no ansible-playbook, nothing is known of when a run began."""
    module = "ansible_collections.lockstep.vllm.plugins.plugin_utils.controller"
    text = f"import time\ntime.sleep(0.5)\nfrom {module} import identity\nprint(identity.running_for())\n"
    (tmp_path / name).write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4] / "collections")}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, tmp_path / name], env=environment, capture_output=True, text=True, check=True
    )
    assert least <= float(done.stdout) <= (time.monotonic() - began + 0.02 if least else 0.0)


@pytest.mark.parametrize(
    ("held", "dead"),
    [
        pytest.param({**HERE, "boot": "b0", "pid": 1, "started": 5}, True, id="the machine was rebooted since"),
        pytest.param({**HERE, "namespace": "pid:[2]", "pid": 10**9, "started": 5}, False, id="another container"),
        pytest.param({**HERE, "controller": "ops2", "pid": 10**9, "started": 5}, False, id="another controller"),
        pytest.param({**HERE, "machine": "m2", "boot": "b0", "pid": 10**9}, False, id="a namesake"),
        pytest.param({**HERE, "pid": 10**9, "started": 5}, True, id="no such process"),
        pytest.param({"controller": "ops1", "machine": "m1"}, False, id="a lock with few fields"),
        pytest.param({}, False, id="a lock without fields"),
    ],
)
def test_known_dead(held: dict[str, Any], dead: bool) -> None:
    assert identity.known_dead(held, HERE) == dead
    assert not identity.known_alive(held, HERE)


@pytest.mark.parametrize(
    ("uid", "environment", "known", "name"),
    [
        pytest.param(1001, {}, {1001: "ada"}, "ada", id="no USER, as under cron and in containers"),
        pytest.param(
            1001, {"USER": "bob", "LOGNAME": "bob"}, {1001: "ada"}, "ada", id="the environment may hold anything"
        ),
        pytest.param(0, {"SUDO_USER": "ada"}, {0: "root"}, "ada", id="root on somebody's behalf"),
        pytest.param(1001, {"SUDO_USER": "bob"}, {1001: "ada"}, "ada", id="sudo to an account that is not root"),
        pytest.param(1001, {}, {}, "uid 1001", id="an account without a name"),
    ],
)
def test_user(
    uid: int, environment: dict[str, str], known: dict[int, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("USER", "LOGNAME", "LNAME", "USERNAME", "SUDO_USER"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(identity.pwd, "getpwuid", lambda number: types.SimpleNamespace(pw_name=known[number]))
    assert identity.user() == name
    assert identity.operator().startswith(f"{name}@")
