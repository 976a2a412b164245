"""A roll that people stop: paused and resumed, and given up, which takes everything back."""

from __future__ import annotations

import concurrent.futures
import tempfile
from collections.abc import Mapping
from typing import Any

import ansible_runner
import pytest

from tests.e2e.lab import ROOT, Lab, Play, difference, eventually
from tests.e2e.rolls import (
    HEADS,
    UPGRADE,
    Roll,
    driver,
    log_of,
    nothing_due,
    nothing_lost,
    other,
    serving,
    to,
    traffic,
    verified,
)

pytestmark = pytest.mark.long


def request(lab: Lab, action: str) -> None:
    """Ask a roll for something, as an operator does while it runs elsewhere."""
    with tempfile.TemporaryDirectory(prefix="lockstep-request-") as name:
        runner = ansible_runner.run(
            private_data_dir=name,
            project_dir=str(ROOT),
            host_pattern="all",
            module="lockstep.vllm.rollout_request",
            module_args=f"action={action} reason=lunch",
            inventory=[str(lab.inventory)],
            envvars={**lab.environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            settings={"suppress_env_files": True},
            quiet=True,
        )
        assert runner.rc == 0, runner.stdout.read()


def engines(lab: Lab) -> dict[str, str]:
    """Since when each engine's unit runs."""
    return {
        host: lab.on(host, "systemctl show --value -p ActiveEnterTimestampMonotonic lockstep-vllm") for host in HEADS
    }


def asked_meanwhile(lab: Lab, action: str, extra: Mapping[str, Any]) -> Play:
    """A roll that is asked for ``action`` while its first wave is under way; nothing is lost meanwhile."""
    with concurrent.futures.ThreadPoolExecutor() as pool, traffic(lab) as load:
        running = pool.submit(lab.play, UPGRADE, extra=extra)
        eventually(
            "wave 1 is under way", lambda: lab.record("a1", "/var/lib/lockstep/quarantine.json") is not None, 180
        )
        request(lab, action)
        play = running.result()
    nothing_lost(Roll(play, load, log_of(lab, load)))
    return play


def test_an_abort_rolls_back_what_the_roll_changed(pair: Lab) -> None:
    old = serving(pair)["a1"]
    new = other(old)
    before = engines(pair)
    stopped = asked_meanwhile(pair, "abort", to(new))
    assert stopped.rc != 0
    (message,) = stopped.failures()
    assert "asked to abort (lunch)" in message
    assert "wave 2 of 2 not started" in message
    assert message.endswith("playbooks/upgrade_driver.yml -e rollout_action=abort")
    assert (driver(pair, "a1"), driver(pair, "b1")) == (new, old)

    with traffic(pair) as load:
        back = pair.play(UPGRADE, extra={"rollout_action": "abort"})
    assert back.rc == 0, back.explained()
    nothing_lost(Roll(back, load, log_of(pair, load)))
    for host in HEADS:
        verified(pair, host, old)
    assert engines(pair)["b1"] == before["b1"], "the replica that the roll had not started was restarted"
    nothing_due(pair, dict.fromkeys(HEADS, old))

    again = pair.play(UPGRADE, extra={"rollout_action": "abort"})
    assert again.rc != 0
    assert "there is no roll to abort" in again.failures()[0]

    strange = pair.play(UPGRADE, extra={**to(new), "rollout_action": "converge"})
    assert strange.rc != 0
    assert "rollout_action is 'converge', expected roll or abort" in strange.failures()[0]
    assert driver(pair, "a1") == old


def test_a_paused_roll_goes_on_when_it_is_resumed(pair: Lab) -> None:
    old = serving(pair)["a1"]
    new = other(old)
    paused = asked_meanwhile(pair, "pause", to(new))
    assert paused.rc != 0
    (message,) = paused.failures()
    assert "asked to pause (lunch)" in message
    assert "action=resume" in message
    canary = engines(pair)["a1"]
    request(pair, "resume")
    resumed = pair.play(UPGRADE, extra=to(new))
    assert resumed.rc == 0, resumed.explained()
    for host in HEADS:
        verified(pair, host, new)
    assert engines(pair)["a1"] == canary, "what was done before the pause was done again"
    over = pair.play(UPGRADE, extra={"rollout_action": "abort"})
    assert over.rc != 0
    assert f"-e nvidia_driver_version={old}" in over.failures()[0]


def test_a_wave_does_not_start_below_the_capacity_floor(pair: Lab) -> None:
    old = serving(pair)["a1"]
    new = other(old)
    untouched = pair.snapshot(["b1"])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(pair.play, UPGRADE, extra={**to(new), "rollout_pause_between": 45})
        eventually("wave 1 is over", lambda: accepted(pair, "a1", new), 600)
        pair.on("a1", "systemctl stop lockstep-vllm")
        play = running.result()
    assert play.rc != 0
    (message,) = play.failures()
    for words in (
        "a1: ",
        "the capacity floor is 1",
        "wave 2 of 2 not started",
        "playbooks/status.yml",
    ):
        assert words in message
    assert difference(untouched, pair.snapshot(["b1"])) == {}, "the last replica that serves was touched"
    for head in HEADS:
        assert pair.record(head, "/var/lib/lockstep/lock.json") is None

    finished = pair.play(UPGRADE, extra=to(new))
    assert finished.rc == 0, finished.explained()
    for host in HEADS:
        verified(pair, host, new)


def accepted(lab: Lab, host: str, version: str) -> bool:
    """Whether the host's wave is over, and this driver the one that it would come back to."""
    memory = lab.record(host, "/var/lib/lockstep/driver.json") or {}
    return memory.get("change") is None and (memory.get("verified") or {}).get("version") == version
