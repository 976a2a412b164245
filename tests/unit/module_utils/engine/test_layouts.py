"""Layouts: tables of GPUs, time and policy, and what may run."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.window import Window
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import layouts
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.layouts import Layout, Policy

BIG, MIDDLE, SMALL = Layout("big", 8, 2), Layout("middle", 8), Layout("small", 4)
LIST = (BIG, MIDDLE, SMALL)


@pytest.mark.parametrize(
    ("gpus", "waited", "hopeless", "layout", "expected"),
    [
        (16, 0, False, BIG, "16 GPUs are there"),
        (20, 0, False, BIG, "20 GPUs are there"),
        (8, 0, False, None, "8 of the 16 GPUs of big are there; middle starts in 120 s"),
        (8, 119, False, None, "in 1 s"),
        (8, 120, False, MIDDLE, "patience of 120 s is over"),
        (12, 500, False, MIDDLE, "patience"),
        (7, 500, False, SMALL, "patience"),
        (3, 500, False, None, "3 of the 16 GPUs"),
        (8, 0, True, MIDDLE, "waiting cannot help"),
        (0, 0, True, None, "0 of the 16 GPUs"),
    ],
)
def test_choose(gpus: int, waited: float, hopeless: bool, layout: Layout | None, expected: str) -> None:
    choice = layouts.choose(LIST, gpus, waited, 120, hopeless)
    assert choice.layout == layout
    assert expected in choice.reason


def test_a_smaller_layout_waits_for_the_preferred_one_where_nobody_knows_it_hopeless() -> None:
    assert layouts.choose(LIST, 8, 0, Policy().patience).reason.endswith("middle starts in 120 s if it stays so")


@pytest.mark.parametrize(
    ("layout", "gpus", "sizes"),
    [
        (Layout("", 8), 8, "TP 8 × PP 1"),
        (Layout("", 8, 2), 16, "TP 8 × PP 2"),
        (Layout("", 4, 2, data_parallel_size=2), 16, "TP 4 × PP 2 × DP 2"),
    ],
)
def test_sizes(layout: Layout, gpus: int, sizes: str) -> None:
    assert (layout.gpus, layout.sizes) == (gpus, sizes)


@pytest.mark.parametrize(
    ("current", "gpus", "better"),
    [(SMALL, 4, None), (SMALL, 8, MIDDLE), (SMALL, 16, BIG), (MIDDLE, 8, None), (MIDDLE, 16, BIG), (BIG, 99, None)],
)
def test_better(current: Layout, gpus: int, better: Layout | None) -> None:
    assert layouts.better(LIST, current, gpus) == better


NIGHT = Window.parse("22:00-04:00")


@pytest.mark.parametrize(
    ("policy", "there_for", "hour", "requested", "may", "expected"),
    [
        (Policy(), 59, 12, False, False, "to stay for 60 s first"),
        (Policy(), 60, 12, False, True, ""),
        (Policy(), 10, 12, True, False, "to stay for 60 s first"),
        (Policy(move_up="command"), 90, 12, False, False, "move-up"),
        (Policy(move_up="command"), 90, 12, True, True, ""),
        (Policy(move_up="window", window=NIGHT), 90, 12, False, False, "22:00-04:00 UTC"),
        (Policy(move_up="window", window=NIGHT), 90, 23, False, True, ""),
        (Policy(move_up="window", window=NIGHT), 90, 3, False, True, ""),
        (Policy(move_up="window", window=NIGHT), 90, 4, False, False, "22:00-04:00 UTC"),
        (Policy(move_up="window", window=NIGHT), 90, 12, True, True, ""),
        (Policy(move_up="window", window=NIGHT), 90, 22, False, True, ""),
        (Policy(move_up="window"), 90, 23, False, False, "by command"),
        (Policy(move_up="command", window=NIGHT), 90, 23, False, False, "by command"),
        (Policy(move_up="window", window=Window.parse("02:00-04:00")), 90, 4, False, False, "02:00-04:00 UTC"),
        (Policy(move_up="window", window=Window.parse("02:00-04:30")), 90, 2, False, True, ""),
        (Policy(move_up="window", window=Window.parse("02:00-04:30")), 90, 1, False, False, "02:00-04:30"),
    ],
)
def test_may_move_up(policy: Policy, there_for: float, hour: int, requested: bool, may: bool, expected: str) -> None:
    allowed, reason = layouts.may_move_up(
        policy, there_for, datetime.datetime(2026, 11, 28, hour, tzinfo=datetime.UTC), requested
    )
    assert allowed == may
    assert expected in reason


@pytest.mark.parametrize(
    ("layout", "gpus_of_head", "hosts", "each"),
    [
        (Layout("", 8, 2), 8, 2, 8),
        (Layout("", 16, 2), 8, 4, 8),
        (Layout("", 4), 8, 1, 4),
        (Layout("", 4, 3), 8, 2, 8),
        (Layout("", 8, 1, {}, 2), 8, 2, 8),
        (Layout("", 2), 0, 2, 1),
    ],
)
def test_hosts_that_a_layout_takes(layout: Layout, gpus_of_head: int, hosts: int, each: int) -> None:
    assert layout.on(gpus_of_head) == (hosts, each)
