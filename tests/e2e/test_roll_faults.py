"""What can go wrong in a roll: nobody is stranded, nothing is lost, and the next run finishes."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

import pytest

from tests.e2e.lab import Lab, Play, difference
from tests.e2e.rolls import REPLICAS, nothing_lost, other, roll, serving, verified

pytestmark = pytest.mark.long


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault that a roll meets at replica_a, its canary.

    Attributes:
        name: the bench's switch, set on a1 before the roll.
        says: what the run's last words have to name.
        left: how a1 is left: ``untouched``; ``restored``: admitted on the old driver.
        new_only: it strikes only while the new driver is there.
    """

    name: str
    says: tuple[str, ...]
    left: Literal["untouched", "restored"]
    new_only: bool = False


FAULTS = (
    Fault("driver_install_fails", ("a1", "dkms"), "restored", new_only=True),
    Fault("apt_lock_held", ("a1", "locks were not free"), "untouched"),
    Fault("disk_full", ("a1", "space"), "untouched"),
)


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.name)
def test_a_fault_stops_the_roll_and_strands_nobody(pair: Lab, case: Fault) -> None:
    old = serving(pair, alike=False)["a1"]
    new = other(old)
    untouched = pair.look(["b1"])
    pair.bench("fault", "a1", case.name, *(["--when-driver", new] if case.new_only else []))
    try:
        rolled = roll(pair, new)
        assert rolled.play.rc != 0, rolled.play.explained()
        nothing_lost(rolled)
        for word in (*case.says, "next:"):
            assert word.lower() in last_words(rolled.play).lower(), (
                f"its last words do not say {word!r}: {last_words(rolled.play)}"
            )
        assert difference(untouched, pair.look(["b1"])) == {}, "the other replica was touched"
        assert rolled.in_rotation() == set(REPLICAS)
        verified(pair, "a1", old)
        if case.left == "untouched":
            assert rolled.log.changes == ()
    finally:
        pair.bench("fault", "a1", "--clear")

    finished = roll(pair, new, "--limit", "replica_a")
    assert finished.play.rc == 0, finished.play.explained()
    nothing_lost(finished)
    verified(pair, "a1", new)
    assert finished.in_rotation() == set(REPLICAS)


def last_words(play: Play) -> str:
    """What a person who comes back to the screen finds on it, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m|\r", "", play.text)[-4000:]
