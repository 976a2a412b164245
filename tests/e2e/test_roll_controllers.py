"""Controllers of a roll: two at once, one that dies, and the one that finishes what it began."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e.lab import Controller, Lab, Play, difference, eventually
from tests.e2e.rolls import (
    HEADS,
    REPLICAS,
    ROUTER,
    UPGRADE,
    Roll,
    admitted_rightly,
    driver,
    log_of,
    nothing_lost,
    other,
    roll,
    serving,
    to,
    traffic,
    verified,
)
from tests.e2e.traffic import Traffic

SEED = int(os.environ.get("LOCKSTEP_SEED", "5"))
KILLS = int(os.environ.get("LOCKSTEP_KILLS", "24"))
"""How many controllers the long test kills."""
DRAW = random.Random(SEED)
LOCK = "/var/lib/lockstep/lock.json"


def moments(count: int) -> list[float]:
    """Moments of a roll, as parts of its length: one drawn from each of ``count`` equal stretches, in any order."""
    drawn = [round((n + DRAW.random()) / count, 3) for n in range(count)]
    DRAW.shuffle(drawn)
    return drawn


def test_a_second_controller_is_refused_and_a_dead_ones_roll_is_finished(pair: Lab) -> None:
    old = serving(pair)["a1"]
    new = other(old)
    with traffic(pair) as load:
        with pair.controller(UPGRADE, to(new)) as one, pair.controller(UPGRADE, to(new)) as two:
            eventually("one of them is refused", lambda: one.ended or two.ended, 120, 0.5)
            refused, holder = (one, two) if one.ended else (two, one)
            lock = pair.record("a1", LOCK)
            assert lock, plain(refused)
            assert lock["pid"] == holder.process.pid
            is_refused_and_changes_nothing(refused, f"run {lock['run']} of {lock['holder']} (pid {lock['pid']})")
            eventually("a replica is being changed", lambda: being_changed(pair, new), 180, 0.5)
            time.sleep(DRAW.uniform(0, 30))  # and at any moment of it
            assert not holder.ended, plain(holder)
            holder.kill()
        for host in HEADS:
            admitted_rightly(pair, host)
            elsewhere(pair, host)
        again = pair.play(UPGRADE, extra=to(new))
        assert again.rc != 0
        (message,) = again.failures()
        assert f"-e rollout_lock_take_over={lock['run']}" in message
        # Whoever takes it over is killed as well, and so is the next one, which needs no name: it knows that the last is dead.
        is_killed(pair, {**to(new), "rollout_lock_take_over": lock["run"]})
        is_killed(pair, to(new))
        finished = run_again(pair, to(new))
    is_finished(pair, new, finished, load)


@pytest.fixture(scope="module")
def length(pair: Lab) -> float:
    """Seconds that a roll takes which nobody stops."""
    rolled = roll(pair, other(serving(pair)["a1"]))
    assert rolled.play.rc == 0, rolled.play.explained()
    return rolled.play.seconds


@pytest.mark.long
@pytest.mark.parametrize("part", moments(KILLS))
def test_a_controller_killed_at_any_moment_strands_nobody(pair: Lab, length: float, part: float) -> None:
    new = other(serving(pair)["a1"])
    with traffic(pair) as load:
        with pair.controller(UPGRADE, to(new)) as controller:
            began = time.monotonic()
            eventually(
                "the moment", lambda: controller.ended or time.monotonic() - began > part * length, 2 * length, 0.2
            )
            whole = controller.ended  # one that was quicker than the roll that was measured
            controller.kill()
        print(f"\nkilled after {part * length:.0f} s of {length:.0f} s{', when it had ended' * whole}")
        for host in HEADS:
            admitted_rightly(pair, host)
        finished = run_again(pair, to(new))
    is_finished(pair, new, finished, load)


@pytest.mark.long
@pytest.mark.parametrize("roll_number", range(KILLS // 4))
def test_controllers_killed_one_after_the_other_strand_nobody(pair: Lab, roll_number: int) -> None:
    new = other(serving(pair)["a1"])
    with traffic(pair) as load:
        for _ in range(4):
            is_killed(pair, to(new))
        finished = run_again(pair, to(new))
    is_finished(pair, new, finished, load)


@pytest.mark.long
def test_a_roll_interrupted_by_ctrl_c_is_reported_and_finished_by_the_next_run(pair: Lab) -> None:
    new = other(serving(pair)["a1"])
    with traffic(pair) as load:
        with pair.controller(UPGRADE, to(new)) as controller:
            eventually("a replica is being changed", lambda: being_changed(pair, new), 180, 0.5)
            time.sleep(DRAW.uniform(0, 30))
            controller.interrupt()
            eventually("it ends by itself", lambda: controller.ended, 60, 0.5)
            text = plain(controller)
            assert controller.process.returncode != 0, text
            assert "interrupted after" in text, text
            assert "report " in text, text
        for host in HEADS:
            admitted_rightly(pair, host)
        finished = run_again(pair, to(new))
    is_finished(pair, new, finished, load)


@pytest.mark.long
def test_a_bake_whose_controller_is_killed_starts_again(pair: Lab) -> None:
    new = other(serving(pair)["a1"])
    bake = {**to(new), "rollout_bake_seconds": 40, "rollout_bake_latency_factor": 50}
    with traffic(pair) as load:
        with pair.controller(UPGRADE, bake) as controller:
            eventually("a1 is watched", lambda: controller.ended or " a1 bake " in plain(controller), 240, 0.5)
            time.sleep(20)
            assert not controller.ended, plain(controller)
            controller.kill()
        admitted_rightly(pair, "a1")
        finished = run_again(pair, bake)
    reported = re.findall(r"(a1|b1) .*baked 4\d s of 40: ", finished.text)
    assert reported == list(HEADS), finished.explained()
    is_finished(pair, new, finished, load)


def is_killed(lab: Lab, extra: Mapping[str, Any]) -> None:
    """A controller that is killed within the minute after it has the lock; nothing runs then that should not."""
    moment = DRAW.uniform(0, 60)
    with lab.controller(UPGRADE, extra) as controller:
        eventually(
            "it has the lock",
            lambda: controller.ended or (lab.record("a1", LOCK) or {}).get("pid") == controller.process.pid,
            120,
            0.5,
        )
        began = time.monotonic()
        eventually("the moment", lambda: controller.ended or time.monotonic() - began > moment, 120, 0.2)
        print(f"\nkilled {moment:.0f} s after it had the lock" if not controller.ended else "\nended before its moment")
        controller.kill()
    for host in HEADS:
        admitted_rightly(lab, host)


def run_again(lab: Lab, extra: Mapping[str, Any]) -> Play:
    """The run after the one that was stopped, and some seconds of what serves afterwards."""
    play = lab.play(UPGRADE, extra=extra)
    time.sleep(5)
    return play


def is_finished(lab: Lab, new: str, finished: Play, load: Traffic) -> None:
    """The run that came last has brought every replica to ``new``; nothing was lost; the next one changes nothing."""
    rolled = Roll(finished, load, log_of(lab, load))
    print(rolled.summary())
    assert rolled.play.rc == 0, rolled.play.explained()
    nothing_lost(rolled)
    for host in HEADS:
        verified(lab, host, new)
        assert lab.record(host, LOCK) is None
    assert rolled.log.rotation == set(REPLICAS)
    before = lab.snapshot([*HEADS, ROUTER])
    again = lab.play(UPGRADE, extra=to(new))
    assert again.rc == 0, again.explained()
    assert again.changed() == {}
    assert difference(before, lab.snapshot([*HEADS, ROUTER])) == {}


def is_refused_and_changes_nothing(controller: Controller, holder: str) -> None:
    text = plain(controller)
    assert controller.process.returncode not in (0, None), text
    for fragment in (
        "a rollout is in progress",
        f"{holder} holds the lock",
        "last heartbeat",
        "Wait for it to end",
    ):
        assert fragment in text, text
    recap = re.findall(r"changed=(\d+)", text)
    assert recap, text
    assert set(recap) == {"0"}, text


def being_changed(lab: Lab, new: str) -> bool:
    return lab.record("a1", "/var/lib/lockstep/quarantine.json") is not None or driver(lab, "a1") == new


def elsewhere(lab: Lab, host: str) -> None:
    """Make the lock one of another machine's, which nobody here can know to be alive or dead."""
    lab.on(host, f'sed -i \'s/"controller": "[^"]*"/"controller": "ops2"/\' {LOCK} && grep -q ops2 {LOCK}')


def plain(controller: Controller) -> str:
    """What the controller printed, without colours and with every space or line's end as one space."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", controller.text()).split())
