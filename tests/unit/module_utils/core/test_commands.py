"""Commands that hang or do not exist, and work in the background."""

from __future__ import annotations

import time

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import commands
from tests.machine import ENDLESS, PATIENCE


def test_work_in_the_background_returns_or_raises() -> None:
    assert commands.in_background(lambda: 7)() == 7
    with pytest.raises(ZeroDivisionError):
        commands.in_background(lambda: 1 // 0)()


def test_a_command_that_hangs_is_ended() -> None:
    start = time.monotonic()
    answer = commands.run_command(["sh", "-c", f"sleep {ENDLESS} & sleep {ENDLESS}"], 0.2)
    assert answer.timed_out
    assert answer.returncode is None
    assert time.monotonic() - start < PATIENCE


def test_a_command_that_is_not_there() -> None:
    answer = commands.run_command(["no-such-command-of-nvidia"], 1.0)
    assert answer.returncode is None
    assert not answer.timed_out
