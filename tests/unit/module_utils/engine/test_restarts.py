"""Restarts: how failures add up, and when it ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.engine.restarts import (
    Restarts,
    failures_in_a_row,
    pause_before_restart,
)

ROOT = Path(__file__).parents[4]
BOUNDS = Restarts(limit=5, backoff=5, longest=15, stable_seconds=120)


@pytest.mark.parametrize(("before", "served", "after"), [(0, 0, 1), (2, 0, 3), (2, 119, 3), (2, 120, 1), (0, 9999, 1)])
def test_failures_in_a_row(before: int, served: float, after: int) -> None:
    assert failures_in_a_row(before, served, BOUNDS) == after


@pytest.mark.parametrize(("failures", "pause"), [(1, 0), (2, 5), (3, 10), (4, 15), (5, None), (9, None)])
def test_pauses_double_are_bounded_and_end(failures: int, pause: float | None) -> None:
    assert pause_before_restart(failures, BOUNDS) == pause


def test_bounds_are_those_of_the_role() -> None:
    """Where engine.json leaves one out, and where the role fills it in, it is the same."""
    defaults = yaml.safe_load((ROOT / "roles/vllm_server/defaults/main.yml").read_text(encoding="utf-8"))
    assert dataclasses.asdict(Restarts()) == defaults["vllm_server_restarts"]
