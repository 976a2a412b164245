"""The ladder: tables of what was tried and what to start, and of completions that differ or do not."""

from __future__ import annotations

import json

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import ladder
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.completion import Token
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.ladder import Rung, Trial
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.record import RungState
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.states import EndCode, Verdict

ALL: tuple[Rung, ...] = ("none", "piecewise", "full")
P, F = Trial(Verdict.PROVEN), Trial(Verdict.FAILED, EndCode.START_HANGS, "no answer")


@pytest.mark.parametrize(
    ("allowed", "trials", "rung", "completed"),
    [
        (ALL, {}, "none", False),
        (ALL, {"none": P}, "full", False),
        (ALL, {"none": P, "full": P}, "full", True),  # healthy: two starts
        (ALL, {"none": P, "full": F}, "piecewise", False),  # untried below a failing top
        (ALL, {"none": P, "piecewise": P}, "full", False),
        (ALL, {"none": P, "piecewise": P, "full": P}, "full", True),
        (ALL, {"none": P, "piecewise": P, "full": F}, "piecewise", True),
        (ALL, {"none": P, "piecewise": F, "full": F}, "none", True),
        (ALL, {"none": P, "piecewise": F}, "full", False),
        (("none", "full"), {"none": P, "full": F}, "none", True),
        (("none",), {"none": F}, None, True),
        (ALL, {"none": F, "piecewise": F, "full": F}, None, True),
        (("none",), {"none": P, "piecewise": P}, "none", True),
        (("none", "full"), {"none": P, "piecewise": F}, "full", False),
        (("piecewise", "full"), {}, "piecewise", False),
    ],
)
def test_next_rung(allowed: tuple[Rung, ...], trials: dict[Rung, Trial], rung: Rung | None, completed: bool) -> None:
    assert ladder.next_rung(allowed, trials) == rung
    assert ladder.completed(allowed, trials) == completed


@pytest.mark.parametrize(
    ("rung", "trials", "code", "failures", "blamed"),
    [
        ("none", {}, EndCode.START_DIES, 9, False),  # nothing lies below it
        ("full", {}, EndCode.START_HANGS, 1, True),  # on trial: one chance
        ("full", {}, EndCode.MEMBERS_LOST, 9, False),
        ("full", {"full": P}, EndCode.WEDGED, 1, False),  # proven: two
        ("full", {"full": P}, EndCode.WEDGED, 2, True),
        ("full", {"full": P}, EndCode.MEMBERS_LOST, 2, False),
        ("piecewise", {"none": P}, EndCode.DIFFERS, 1, True),
    ],
)
def test_blame(rung: Rung, trials: dict[Rung, Trial], code: EndCode, failures: int, blamed: bool) -> None:
    assert ladder.blames(rung, ALL, trials, code, failures) is blamed


def test_shown_to_people() -> None:
    trials: dict[Rung, Trial] = {"none": P, "piecewise": P, "full": F}
    on_cpu = "on CPU: torch.compile, no graph is captured"
    assert ladder.shown(ladder.Ladder("k", trials, platform="cpu")) == {
        "none": RungState(Verdict.PROVEN),
        "piecewise": RungState(Verdict.PROVEN, on_cpu),
        "full": RungState(Verdict.FAILED, "no answer"),
    }
    timed = ladder.Trial(Verdict.PROVEN, seconds=36.5, at="2026-11-27T17:29:01Z")
    assert ladder.shown(ladder.Ladder("k", {"none": timed}))["none"].seconds == 36.5
    assert ladder.shown(ladder.Ladder("k", trials, platform="cuda"))["piecewise"] == RungState(Verdict.PROVEN)


def tokens(*texts: str, gap: float = 3.0, rival: str = "?") -> list[Token]:
    return [Token(text, -0.1, {text: -0.1, rival: -0.1 - gap}) for text in texts]


@pytest.mark.parametrize(
    ("baseline", "got", "expected"),
    [
        (tokens("a", "b"), tokens("a", "b"), ""),
        ([], [], ""),
        (tokens("a", "b"), tokens("a", "x"), "token 1 is 'x', eager gave 'b'"),
        (tokens("a", "b", rival="x"), tokens("a", "x"), "(3.00 nat likelier)"),
        (tokens("a", "b", rival="x", gap=0.1), tokens("a", "x"), ""),
        (tokens("a", "b", "c", rival="x", gap=0.1), tokens("a", "x", "entirely", "else"), ""),
        (tokens("a", "b"), tokens("a"), "1 tokens, eager gave 2"),
        (tokens("a"), [], "0 tokens, eager gave 1"),
        ([Token("a")], [Token("b")], "token 0 is 'b', eager gave 'a'"),
    ],
)
def test_difference(baseline: list[Token], got: list[Token], expected: str) -> None:
    found = ladder.difference(baseline, got)
    assert (expected in found) if expected else (found == "")


def test_knowledge_holds_for_one_fingerprint_and_one_command() -> None:
    hosts = {"a1": "1111", "a2": "2222"}
    key = ladder.key(hosts, ["vllm", "serve", "m"])
    assert key == ladder.key(dict(reversed(hosts.items())), ["vllm", "serve", "m"])
    assert key != ladder.key({**hosts, "a2": "3333"}, ["vllm", "serve", "m"])
    assert key != ladder.key(hosts, ["vllm", "serve", "other"])


def test_a_record_comes_back_as_it_was() -> None:
    known = ladder.Ladder(
        "k",
        {"none": P, "piecewise": Trial(Verdict.FAILED, EndCode.DIFFERS, "why", 3.0, ("/e",), "now")},
        {"p": tuple(tokens("a"))},
        "cpu",
    )
    record = json.loads(json.dumps(ladder.as_record(known)))
    assert ladder.from_record(record, "k") == known


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"key": "old", "rungs": {"none": {"verdict": "proven"}}, "baseline": {}},
        {"key": "k"},
        {"key": "k", "rungs": [], "baseline": {}},
        {"key": "k", "rungs": {"none": {"verdict": "maybe"}}, "baseline": {}},
    ],
)
def test_void_or_damaged_knowledge_is_forgotten(record: dict[str, object] | None) -> None:
    assert ladder.from_record(record, "k") == ladder.Ladder("k")


@pytest.mark.parametrize(
    ("given", "mode", "expected"),
    [
        (ALL, None, ALL),
        (ALL, "FULL_DECODE_ONLY", ALL),
        (ALL, "FULL", ALL),
        (ALL, "PIECEWISE", ("none", "piecewise")),
        (("none", "full"), "FULL", ("none", "full")),
        (("none",), "FULL", ("none",)),
        (("full",), None, ("full",)),
    ],
)
def test_the_rungs_end_at_the_graphs_that_are_asked_for(
    given: tuple[Rung, ...], mode: str | None, expected: tuple[Rung, ...]
) -> None:
    assert ladder.rungs(given, mode) == expected


@pytest.mark.parametrize(
    ("given", "mode", "expected"),
    [
        (ALL, "FULL_DECODE_ONLY", ""),
        (ALL, "PIECEWISE", ""),
        (("none",), "FULL_DECODE_ONLY", ""),
        (ALL, "NONE", "sets cudagraph_mode NONE; use vllm_server_ladder: [none] instead"),
        (ALL, "FULL_DECODE", "choose from PIECEWISE, FULL, FULL_DECODE_ONLY, FULL_AND_PIECEWISE"),
        (("none", "piecewise"), "FULL", "of rung full, and vllm_server_ladder is [none, piecewise]; use [none, piecewise, full]"),
        (("none", "full"), "PIECEWISE", "use [none, piecewise, full]"),
    ],
)  # fmt: skip
def test_graphs_that_no_rung_can_run_are_refused(given: tuple[Rung, ...], mode: str, expected: str) -> None:
    said = ladder.mode_problem(given, mode)
    assert (expected in said) if expected else (said == "")


def test_rungs_are_what_vllm_calls_them() -> None:
    assert ladder.rung_arguments("none") == {"enforce_eager": True}
    assert ladder.rung_arguments("piecewise") == {"compilation_config": {"cudagraph_mode": "PIECEWISE"}}
    assert ladder.rung_arguments("full") == {"compilation_config": {"cudagraph_mode": "FULL_AND_PIECEWISE"}}
    own = {"compilation_config": {"cudagraph_mode": "FULL_DECODE_ONLY"}}
    assert ladder.rung_arguments("full", "FULL_DECODE_ONLY") == own
    assert ladder.rung_arguments("piecewise", "FULL_DECODE_ONLY") == ladder.rung_arguments("piecewise")
    assert ladder.rung_arguments("none", "FULL_DECODE_ONLY") == {"enforce_eager": True}
