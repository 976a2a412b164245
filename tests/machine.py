"""The machine that tests run on: it may be thirty times as busy as it should be, and other tests run on it at the same time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

PATIENCE = 240.0
"""Seconds after which what is awaited is taken to hang. No test measures with it: what must be cut short would last longer."""
ENDLESS = 900
"""Seconds for which that would last."""


def until(reached: Callable[[], object], what: str = "it") -> None:
    """Wait until ``reached`` says so; ``what`` is named where it never does."""
    ends = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < ends, f"{what} did not come within {PATIENCE:g} s"
        time.sleep(0.02)


def loopback(number: int = 0) -> str:
    """One of four addresses of this process alone: no other listens where it has just stopped to, or wants the same port."""
    whole = os.getpid() * 4 + number
    return f"127.{whole >> 16 & 255}.{whole >> 8 & 255}.{whole & 255}"
