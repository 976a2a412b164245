"""Who holds GPU memory, before and after."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import memory
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.memory import Holder

LISTED = '4711, "/opt/app, beta/python", 71680\n812, Xorg, [N/A]\nNo running processes found\n'
TRAIN, XORG = Holder(4711, "/opt/app, beta/python", 71680), Holder(812, "Xorg", None)


@pytest.mark.parametrize(
    ("result", "holders"),
    [
        (CommandResult(0, LISTED), [TRAIN, XORG]),
        (CommandResult(14, f"{LISTED}WARNING: infoROM is corrupted at gpu 0000:00:1E.0\n"), [TRAIN, XORG]),
        (CommandResult(9, LISTED), []),
        (CommandResult(None, stderr="No such file or directory"), []),
    ],
)
def test_holders(result: CommandResult, holders: list[Holder]) -> None:
    assert memory.holders(lambda _argv, _deadline: result) == holders


def test_a_holder_is_named_with_its_memory() -> None:
    assert [str(holder) for holder in (TRAIN, XORG)] == [
        "/opt/app, beta/python (pid 4711) holds 71680 MiB",
        "Xorg (pid 812) holds an unknown amount",
    ]


class Clock:
    """Time that passes only in ``sleep``."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.mark.parametrize(("freed_at", "left", "waited"), [(0.0, [], 0.0), (1.0, [], 1.0), (9.0, [TRAIN], 3.0)])
def test_what_is_left_is_waited_for(freed_at: float, left: list[Holder], waited: float) -> None:
    clock = Clock()
    result = memory.left(
        [XORG],
        within=3.0,
        now=lambda: [XORG] if clock() >= freed_at else [XORG, TRAIN],
        clock=clock,
        sleep=clock.sleep,
    )
    assert result == left
    assert clock() == pytest.approx(waited, abs=0.21)
