"""The ladder where it is most easily changed by a slip: its order, its tie, its records."""

from __future__ import annotations

import string
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import ladder
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.completion import Token
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.ladder import Trial


def test_rungs_climb_from_eager() -> None:
    assert ladder.RUNGS == ("none", "piecewise", "full")


def test_a_key_is_sixteen_hex_digits() -> None:
    key = ladder.key({"a1": "1111"}, ["vllm", "serve", "m"])
    assert len(key) == 16
    assert set(key) <= set(string.hexdigits)


@pytest.mark.parametrize(("rival", "differs"), [(-0.5, False), (-0.50390625, True), (-1.25, True)])
def test_a_tie_is_a_quarter_of_a_nat_and_no_more(rival: float, differs: bool) -> None:
    eager = [Token("a", -0.25, {"a": -0.25, "b": rival})]
    assert bool(ladder.difference(eager, [Token("b")])) is differs


def test_a_token_that_eager_did_not_weigh_has_no_distance() -> None:
    assert ladder.difference([Token("a", -0.1, {"a": -0.1})], [Token("b")]) == "token 0 is 'b', eager gave 'a'"


def test_a_trial_is_added_and_the_others_stay() -> None:
    known = ladder.Ladder("k", {"none": Trial("proven"), "full": Trial("failed", "died")}, {}, "cuda")
    better = ladder.with_trial(known, "full", Trial("proven"))
    assert better == ladder.Ladder("k", {"none": Trial("proven"), "full": Trial("proven")}, {}, "cuda")
    assert known.trials["full"].verdict == "failed"


def test_a_proven_rung_has_nothing_to_explain() -> None:
    assert Trial("proven") == Trial("proven", "ok", "", 0.0, (), "")


@pytest.mark.parametrize(
    "damaged",
    [
        {"rungs": {"none": 3}, "baseline": {}},
        {"rungs": {}},
        {"rungs": {}, "baseline": {"p": [3]}},
        {"rungs": 3, "baseline": {}},
    ],
)
def test_a_damaged_record_is_forgotten(damaged: dict[str, Any]) -> None:
    assert ladder.from_record({"key": "k", **damaged}, "k") == ladder.Ladder("k")
