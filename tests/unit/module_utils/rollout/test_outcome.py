"""A wave's outcome is taken over its planned members: the missing count as failed."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import outcome

FAILURE = {"stage": "change", "task": "Driver is installed", "msg": "no space left"}


@pytest.mark.parametrize(
    ("waves", "sizes"),
    [([], [1]), ([1, 1], [2]), ([1, 1, 2, 2, 2, 3], [2, 3, 1]), ([0, 0], [2])],
)
def test_sizes(waves: list[int], sizes: list[int]) -> None:
    assert outcome.sizes(waves) == sizes


@pytest.mark.parametrize(
    ("batch", "kept", "hosts"),
    [
        (["a1", "a2"], {}, []),
        (["a1", "a2"], {"a2": FAILURE}, ["a2"]),
        (["a1"], {}, ["a2"]),
        ([], {}, ["a1", "a2"]),
        (["a1"], {"a2": FAILURE}, ["a2"]),
    ],
)
def test_trouble(batch: list[str], kept: dict, hosts: list[str]) -> None:
    rows = outcome.trouble(["a1", "a2"], batch, kept)
    assert [row["host"] for row in rows] == hosts


def test_a_failure_keeps_its_evidence_and_is_no_template() -> None:
    told = outcome.failure({"msg": "a {{ b }}", "gate": {"evidence": ["/e/graph/stack.1"]}}, "change", "task")
    assert told == {"stage": "change", "task": "task", "msg": "a { { b }}", "evidence": ["/e/graph/stack.1"]}
    assert outcome.failure({"evidence": "/e/x"}, "change", "task")["evidence"] == ["/e/x"]
    assert outcome.failure({}, "change", "task")["msg"] == "it gave no message"


@pytest.mark.parametrize(
    ("stage", "itself", "mates", "goes_on"),
    [
        ("restore", False, [], True),
        ("restore", False, ["a2"], True),
        ("verify_hosts", False, ["a2"], True),
        ("restore", True, [], False),
        ("stamp_hosts", False, ["a2"], False),
        ("start_ray", False, ["a2"], False),
        ("start_ray", False, [], True),
        ("accept_restored", False, ["a2"], False),
    ],
)
def test_nobody_waits_for_a_mate_that_could_not_be_put_back(
    stage: str, itself: bool, mates: list[str], goes_on: bool
) -> None:
    assert outcome.goes_on_putting_back(stage, itself, mates) == goes_on


NOT_BACK = {"host": "a2", "stage": "putting back, restore", "msg": "no such version"}


@pytest.mark.parametrize(
    ("left", "back", "said"),
    [
        ([], {"a1": "550.90.07"}, ["passed its gates again and serves: a1 on 550.90.07", "upgrade_driver.yml -e"]),
        (
            [NOT_BACK],
            {"a1": "550.90.07"},
            ["could not be put back", "no such version", "diagnose.yml --limit replica_a"],
        ),
        (
            [{**NOT_BACK, "stage": outcome.UNTOLD, "msg": "router1 is unreachable"}],
            {"a1": "550.90.07"},
            ["serves, but its router was not told", "router1 is unreachable", "upgrade_driver.yml -e"],
        ),
        ([], {}, ["diagnose.yml --limit replica_a"]),
    ],
)
def test_the_last_words(left: list[dict], back: dict[str, str], said: list[str]) -> None:
    rows = outcome.trouble(["a1", "a2"], ["a1"], {"a1": {**FAILURE, "evidence": ["/e/r/graph/stack"]}})
    text = outcome.verdict(rows, left, back, (1, 3), "replica_a", "runs/r")
    for word in ("Wave 1 of 3", "a1", "no space left", "a1:/e/r/graph", "a2", "unreachable", "runs/r", *said):
        assert word in text
    assert text.splitlines()[-1].startswith("Next: ansible-playbook ")
