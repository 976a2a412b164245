"""A roll that watches what it has changed: what serves as before goes on, what serves worse is rolled back."""

from __future__ import annotations

import re

import pytest

from tests.e2e.lab import Lab
from tests.e2e.rolls import REPLICAS, nothing_due, nothing_lost, other, roll, serving, verified

pytestmark = pytest.mark.long

# The testbed shares its two cores with whatever else runs; the fault is far slower than that makes it.
BAKE = {"rollout_bake_seconds": 60, "rollout_bake_latency_factor": 3}


def test_a_bake_accepts_good_replicas_and_rolls_slow_ones_back(pair: Lab) -> None:
    old = serving(pair)["a1"]
    new = other(old)
    pair.testbed("fault", "b1", "engine_slow", "200", "--when-driver", new)
    try:
        rolled = roll(pair, new, extra=BAKE)
        assert rolled.play.rc != 0, rolled.play.explained()
        nothing_lost(rolled)
        verified(pair, "a1", new)
        verified(pair, "b1", old)
        assert rolled.log.rotation == set(REPLICAS)
        (cause,) = {message for message in rolled.play.failures() if message.startswith("serves worse than before")}
        for fragment in ("3 times that is allowed", "none ended badly", "Next: "):
            assert fragment in cause
        assert "Wave 2 of 2 failed" in rolled.play.text
        reported = [line for line in rolled.play.text.splitlines() if re.search(r"a1 .*baked 6\d s of 60: ", line)]
        assert reported, "the good bake does not report what was seen"
        assert "s of 60: " in rolled.report()
    finally:
        pair.testbed("fault", "b1", "--clear")
    nothing_due(pair, {"a1": new, "b1": old})
