"""How much of the cluster may be changed at once, and when: the operator's policy and the rules over it. Pure."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ..core.window import Window

T = TypeVar("T")
_PERCENT = re.compile(r"^\s*(\d{1,3})\s*%\s*$")


@dataclasses.dataclass(frozen=True)
class Share:
    """A number of replicas, or a percentage of all of them."""

    value: int
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> Share:
        """``3`` or ``25%``.

        Raises:
            ValueError: it is neither.
        """
        match = _PERCENT.match(text)
        return cls(int(match.group(1)), percent=True) if match else cls(int(text))

    def at_most(self, total: int) -> int:
        """Replicas of ``total``, rounded down."""
        return self.value * total // 100 if self.percent else self.value

    def at_least(self, total: int) -> int:
        """Replicas of ``total``, rounded up."""
        return math.ceil(self.value * total / 100) if self.percent else self.value

    def within(self, least: int) -> bool:
        """Whether it is no less than ``least``, and as a percentage no more than 100."""
        return self.value >= least and not (self.percent and self.value > 100)

    def __str__(self) -> str:
        return f"{self.value}%" if self.percent else str(self.value)


@dataclasses.dataclass(frozen=True)
class Policy:
    """How much may be changed at once, when, and in which order; plugins/modules/plan.py documents the options.

    Attributes:
        canary: replicas in the first wave.
        wave_size: replicas in each later wave; a percentage is rounded down, and at least 1.
        capacity_floor: replicas that must keep serving throughout; a percentage is rounded up. None means 1 where there are
            two replicas or more, and 0 for a single one.
        window: outside of it no serving replica is taken. None: always.
        pause_between: seconds between two waves.
        bake_seconds: seconds for which a wave is watched before the next, against how it served before (``bake``).
        bake_latency_factor: how many times longer tokens may take then.
        bake_error_share: by how much the share of requests that end badly may grow.
        bake_requests: how many requests it takes to compare; with fewer, the bake sends its own.
        order: replicas to take first, in this order; the others follow as the inventory has them.
        include_quarantined: take quarantined replicas too.
        leave_serving: take only replicas that don't serve.
    """

    canary: int = 1
    wave_size: Share = Share(25, percent=True)
    capacity_floor: Share | None = None
    window: Window | None = None
    pause_between: float = 0
    bake_seconds: float = 0
    bake_latency_factor: float = 2.0
    bake_error_share: float = 0.02
    bake_requests: int = 20
    order: tuple[str, ...] = ()
    include_quarantined: bool = False
    leave_serving: bool = False

    @classmethod
    def parse(
        cls, wave_size: str | None, capacity_floor: str | None, window: str | None, order: Sequence[str], **others: Any
    ) -> Policy:
        """A policy from the plan action's options, whose types the argument spec has checked; empty means the default.

        Raises:
            ValueError: an option cannot be used; the message has one fault per line.
        """
        faults: list[str] = []

        def read(name: str, text: str | None, parse: Callable[[str], T]) -> T | None:
            try:
                return parse(text) if text else None
            except ValueError:
                faults.append(_fault(name, text))
                return None

        policy = cls(
            wave_size=read("wave_size", wave_size, Share.parse) or cls.wave_size,
            capacity_floor=read("capacity_floor", capacity_floor, Share.parse),
            window=read("window", window, Window.parse),
            order=tuple(name.strip() for name in order),
            **others,
        )
        faults += policy.faults()
        if faults:
            raise ValueError("\n".join(faults))
        return policy

    def faults(self) -> Iterator[str]:
        """Options that are out of range, one line each."""
        usable = {
            "canary": self.canary >= 1,
            "wave_size": self.wave_size.within(least=1),
            "capacity_floor": self.capacity_floor is None or self.capacity_floor.within(least=0),
            "pause_between": 0 <= self.pause_between < math.inf,
            "bake_seconds": 0 <= self.bake_seconds < math.inf,
            "bake_latency_factor": self.bake_latency_factor >= 1,
            "bake_error_share": 0 <= self.bake_error_share <= 1,
            "bake_requests": self.bake_requests >= 1,
        }
        for name, fits in usable.items():
            if not fits:
                yield _fault(name, getattr(self, name))

    def floor(self, total: int) -> int:
        """How many of ``total`` replicas must keep serving."""
        if self.capacity_floor is None:
            return 1 if total > 1 else 0
        return self.capacity_floor.at_least(total)

    def size(self, total: int) -> int:
        """How many of ``total`` replicas a wave after the canary may hold; at least 1."""
        return max(1, self.wave_size.at_most(total))


RANGES = {
    "canary": "a number of replicas, 1 or more",
    "wave_size": "a number of replicas (1 or more) or a percentage (1% to 100%)",
    "capacity_floor": "a number of replicas or a percentage (0% to 100%)",
    "window": "HH:MM-HH:MM in UTC",
    "pause_between": "seconds, 0 or more",
    "bake_seconds": "seconds, 0 or more",
    "bake_latency_factor": "a number, 1 or more",
    "bake_error_share": "a share, 0 to 1",
    "bake_requests": "a number of requests, 1 or more",
}
"""What fits each option whose range the argument spec cannot say."""


def _fault(name: str, value: object) -> str:
    return f"rollout_{name} is {value}: expected {RANGES[name]}"
