"""What the controller asks the hosts whose driver is due, and what it makes of their answers."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.needs import Desired
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import HostState
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import driver_preflight
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer

APT = {
    "/var/lib/dpkg/lock": "pid 812 (unattended-upgrade)",
    "/var/lib/dpkg/lock-frontend": "pid 812 (unattended-upgrade)",
}
BROKEN = {
    "kind": "unfinished",
    "cause": "package demo is half-configured",
    "fix": "dpkg --configure demo",
    "warns": False,
}
REPAIRED = {"kind": "unfinished", "cause": "package nvidia-dkms is half-configured: this run repairs it", "warns": True}


def answer(*problems: dict[str, Any], locks: Mapping[str, str] | None = None) -> Answer:
    return Answer({"locks": dict(locks or {}), "problems": list(problems)})


class Hosts:
    """Hosts that give one answer after the other; the clock goes on while the controller sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[Answer]) -> None:
        self.now, self.asked, self.shown = 0.0, list[list[str]](), list[str]()
        self._answers = answers
        shown = types.SimpleNamespace(display=self.shown.append)
        monkeypatch.setattr(driver_preflight.progress, "Display", lambda: shown)

    def ask(self, requests: Mapping[str, Any]) -> dict[str, Answer]:
        self.asked.append([*requests])
        return {
            host: self._answers[host].pop(0) if len(self._answers[host]) > 1 else self._answers[host][0]
            for host in requests
        }

    def find(self, deadline: float = 300.0) -> driver_preflight.Findings:
        def sleep(seconds: float) -> None:
            self.now += seconds

        requests: dict[str, Any] = {host: {} for host in self._answers}
        return driver_preflight.find(requests, self.ask, deadline, clock=lambda: self.now, sleep=sleep)


@pytest.mark.parametrize(
    "value",
    [
        [],
        "x",
        {},
        {"locks": 5, "problems": []},
        {"locks": {}, "problems": [5]},
        {"locks": {}, "problems": [{"kind": "unheard of", "cause": "x"}]},
        {"locks": {}, "problems": [{"kind": "unfinished"}]},
    ],
)
def test_an_answer_that_is_none_is_its_host_s_refusal_and_no_other_s(
    monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    found = Hosts(monkeypatch, a1=[Answer(value)], a2=[answer(BROKEN)]).find()
    of_a1, of_a2 = found.refusals
    assert of_a1.cause.startswith("a1: its packages cannot be looked at: its answer cannot be used: ")
    assert (of_a2.where, of_a2.cause) == ("a2", "package demo is half-configured")


def test_no_host_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch)
    assert hosts.find() == driver_preflight.Findings()
    assert hosts.asked == []


def test_refusals_have_the_command_and_repairs_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, a1=[answer(BROKEN)], a2=[answer(REPAIRED)], b1=[answer()])
    found = hosts.find()
    assert [(stop.cause, stop.next) for stop in found.refusals] == [
        ("package demo is half-configured", "ansible a1 -b -m ansible.builtin.command -a 'dpkg --configure demo'")
    ]
    assert [str(stop) for stop in found.warnings] == ["a2: package nvidia-dkms is half-configured: this run repairs it"]
    assert hosts.asked == [["a1", "a2", "b1"]]


def test_a_lock_is_waited_for_and_its_holder_named_each_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, a1=[answer(locks=APT), answer(locks=APT), answer(BROKEN)], a2=[answer()])
    found = hosts.find()
    assert [(stop.where, stop.cause) for stop in found.refusals] == [("a1", "package demo is half-configured")]
    assert hosts.asked == [["a1", "a2"], ["a1"], ["a1"]]
    who = "apt is in use: /var/lib/dpkg/lock, /var/lib/dpkg/lock-frontend by pid 812 (unattended-upgrade)"
    assert hosts.shown == [f"a1: waiting for 0 s: {who}", f"a1: waiting for 10 s: {who}"]


def test_a_lock_that_is_not_freed_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, a1=[answer(locks=APT)])
    (stop,) = hosts.find(deadline=25).refusals
    who = "apt is in use: /var/lib/dpkg/lock, /var/lib/dpkg/lock-frontend by pid 812 (unattended-upgrade)"
    assert stop.cause.startswith(f"a1: {who}; waited 25 s. Let it end")
    assert stop.next == "ansible-playbook playbooks/preflight.yml -e nvidia_driver_apt_lock_deadline=1800"
    assert len(hosts.asked) == 4


def test_a_host_that_cannot_say_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    (stop,) = Hosts(monkeypatch, a1=[Answer(error="the program exited with status 1: MemoryError")]).find().refusals
    assert "a1: its packages cannot be looked at: the program exited with status 1" in stop.cause


def test_the_driver_that_the_run_takes_the_host_to_is_asked_for() -> None:
    settings = {
        "nvidia_driver_version": "550.127.05",
        "nvidia_driver_source": "mirror",
        "nvidia_driver_repository_url": "http://m/",
    }
    driver = {"version": "550.90.07", "source": "mirror", "flavor": None}
    state = HostState(distribution="debian", version="12")
    asked = driver_preflight.request(Desired(settings, {}), driver, state, data_tables.read("nvidia_repositories"))
    assert (asked["version"], asked["source"], asked["repository_url"]) == ("550.90.07", "mirror", "http://m/")
    assert (asked["keyring_url"], asked["keyring_fingerprint"][-8:]) == ("http://m/3bf863cc.pub", "3BF863CC")
    assert {*asked} == {*driver_preflight.FIELDS}
