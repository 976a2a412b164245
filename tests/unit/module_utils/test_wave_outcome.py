"""A wave's outcome is taken over its planned members: the missing count as failed."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils import wave_outcome

FAILURE = {"stage": "change", "task": "Driver is installed", "msg": "no space left"}


@pytest.mark.parametrize(
    ("waves", "sizes"),
    [([], [1]), ([1, 1], [2]), ([1, 1, 2, 2, 2, 3], [2, 3, 1]), ([0, 0], [2])],
)
def test_sizes(waves: list[int], sizes: list[int]) -> None:
    assert wave_outcome.sizes(waves) == sizes


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
    rows = wave_outcome.trouble(["a1", "a2"], batch, kept)
    assert [row["host"] for row in rows] == hosts


def test_the_last_words_name_cause_host_and_next_command() -> None:
    rows = wave_outcome.trouble(["a1", "a2"], ["a1"], {"a1": FAILURE})
    text = wave_outcome.verdict(rows, 1, 3, "replica_a")
    for word in ("Wave 1 of 3", "a1", "no space left", "a2", "unreachable", "playbooks/diagnose.yml --limit replica_a"):
        assert word in text
