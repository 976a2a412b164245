"""A wait in a play: short calls, what changes is shown, and the end is the end of the last call."""

from __future__ import annotations

import types
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.action import (
    engine_state,
    nvidia_driver_preflight,
    ray_wait_for_resources,
)
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import waiting_action

LOGS = "journalctl -u lockstep-vllm -n 200"


class Play:
    """A task over a module whose answers are given; the clock goes on with each call's deadline."""

    def __init__(self, action: Any, monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]], **arguments: Any):
        self.now, self.calls, self.shown = 0.0, list[dict[str, Any]](), list[str]()
        monkeypatch.setattr(waiting_action.ActionBase, "run", lambda *_: {})
        monkeypatch.setattr(waiting_action.time, "monotonic", lambda: self.now)
        shown = types.SimpleNamespace(display=self.shown.append)
        monkeypatch.setattr(waiting_action.progress, "Display", lambda: shown)
        self._action = action.ActionModule.__new__(action.ActionModule)
        self._action._task = types.SimpleNamespace(args=arguments, check_mode=False)
        self._action._execute_module = self._call
        self._answers = iter(answers)

    def _call(self, name: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        assert name == self._action.MODULE
        self.calls.append(dict(arguments))
        answer = next(self._answers)
        self.now += arguments["deadline"] if answer["code"] == "deadline" else 1.0
        return answer

    def run(self) -> dict[str, Any]:
        result: dict[str, Any] = self._action.run(None, {"inventory_hostname": "a1"})
        return result


def late(reason: str, **more: Any) -> dict[str, Any]:
    return {"failed": True, "code": "deadline", "reason": reason, "seconds": 15.0, **more}


def test_what_changes_is_shown_once_and_time_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = {"code": "ready", "reason": "", "seconds": 1.0}
    play = Play(ray_wait_for_resources, monkeypatch, [late("a2: off"), late("a2: off"), late("a2: joins"), ready])
    assert play.run() == {"code": "ready", "reason": "", "seconds": 46.0, "changed": False}
    assert play.shown == ["a1: waiting for 15 s: a2: off", "a1: waiting for 45 s: a2: joins"]


def test_the_deadline_bounds_all_calls_together(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(ray_wait_for_resources, monkeypatch, [late("a2: off")] * 9, deadline=40, stable_for=5)
    result = play.run()
    assert result["next"] == "ansible-playbook playbooks/status.yml"
    assert [call["deadline"] for call in play.calls] == [20.0, 20.0]
    assert (
        result["msg"]
        == "Ray's resources are not there after 40 s: a2: off. Next: ansible-playbook playbooks/status.yml"
    )


def test_what_the_first_call_changed_and_forgave_outlives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        late("starting", changed=True, failures_before=2),
        {"failed": True, "code": "hopeless", "reason": "no GPU", "next": LOGS, "changed": False, "failures_before": 2},
    ]
    play = Play(engine_state, monkeypatch, answers, state="serving")
    result = play.run()
    assert (result["changed"], result["code"]) == (True, "hopeless")
    assert play.calls[1]["failures_before"] == 2
    assert result["msg"].startswith("the engine is not serving: no GPU. Next: journalctl")
    assert result["next"] == LOGS


def preflight(code: str, reason: str, *problems: dict[str, Any]) -> dict[str, Any]:
    return {"failed": code != "ready", "code": code, "reason": reason, "problems": list(problems)}


def test_who_uses_apt_is_named_each_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = preflight("deadline", "apt is in use: /var/lib/dpkg/lock by pid 812 (apt-get)")
    play = Play(nvidia_driver_preflight, monkeypatch, [busy, busy, preflight("ready", "")], deadline=300)
    assert play.run()["code"] == "ready"
    assert play.shown == [f"a1: waiting for {seconds} s: {busy['reason']}" for seconds in (10, 20)]
    assert [call["deadline"] for call in play.calls] == [10.0, 10.0, 10.0]


def test_apt_that_stays_in_use_fails_with_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = preflight("deadline", "apt is in use: /var/lib/dpkg/lock by pid 812 (apt-get)")
    result = Play(nvidia_driver_preflight, monkeypatch, [busy] * 9, deadline=20).run()
    assert "a1: apt is in use: /var/lib/dpkg/lock by pid 812 (apt-get); waited 20 s" in result["msg"]
    assert result["next"] == "ansible-playbook playbooks/preflight.yml -e nvidia_driver_apt_lock_deadline=1800"


def test_packages_that_are_not_ready_fail_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {
        "kind": "unfinished",
        "cause": "package demo is half-configured",
        "fix": "dpkg --configure demo",
        "warns": False,
    }
    flavor = {"kind": "flavor", "cause": "GPU 10de:1db5 is older", "fix": "", "warns": False}
    result = Play(nvidia_driver_preflight, monkeypatch, [preflight("refused", "…", flavor, broken)]).run()
    assert "a1: GPU 10de:1db5 is older; package demo is half-configured" in result["msg"]
    assert result["next"] == "ansible a1 -b -m ansible.builtin.command -a 'dpkg --configure demo'"
