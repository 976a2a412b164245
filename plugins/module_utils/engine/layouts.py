"""Which layout runs: the preferred one when its GPUs are there, a smaller one rather than none, and back up again."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any, Literal

from ..core.window import Window

MoveUp = Literal["at_once", "window", "command"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way to shard the model.

    Attributes:
        name: how it is called in records and messages.
        arguments: vLLM arguments of this layout, on top of those of the replica.
        data_parallel_size: engines behind one API, each with TP × PP GPUs of its own; vLLM's argument of that name.
    """

    name: str
    tensor_parallel_size: int
    pipeline_parallel_size: int = 1
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    data_parallel_size: int = 1

    @property
    def gpus(self) -> int:
        """GPUs that it needs: TP × PP × DP."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size

    def on(self, gpus_of_head: int) -> tuple[int, int]:
        """How many hosts must be there, and the GPUs that each must have in order to count: those of the head, at most."""
        each = max(1, gpus_of_head)
        return -(-self.gpus // each), min(each, self.gpus)

    @property
    def sizes(self) -> str:
        """``TP 8 × PP 2``, with ``× DP 2`` where there are several engines."""
        data = f" × DP {self.data_parallel_size}" if self.data_parallel_size > 1 else ""
        return f"TP {self.tensor_parallel_size} × PP {self.pipeline_parallel_size}{data}"


@dataclasses.dataclass(frozen=True)
class Policy:
    """When a smaller layout may start, and when a larger one may replace it.

    Attributes:
        patience: seconds that the preferred layout is waited for before a smaller one starts.
        stable_for: seconds for which a better layout's GPUs must have been there before moving up.
        move_up: ``at_once``; ``window``: inside ``window`` only; ``command``: when the operator requests it.
    """

    patience: float = 120.0
    stable_for: float = 60.0
    move_up: MoveUp = "at_once"
    window: Window | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """A layout, or None, and why."""

    layout: Layout | None
    reason: str


def choose(layouts: Sequence[Layout], gpus: int, waited: float, patience: float, hopeless: bool = False) -> Choice:
    """Which layout to start now.

    Args:
        layouts: in order of preference.
        gpus: GPUs of the hosts that are there.
        waited: seconds waited so far.
        patience: seconds to wait for the preferred layout.
        hopeless: the preferred layout cannot come by waiting.
    """
    preferred = layouts[0]
    if preferred.gpus <= gpus:
        return Choice(preferred, f"{gpus} GPUs are there, {preferred.name} needs {preferred.gpus}")
    fitting = next((layout for layout in layouts[1:] if layout.gpus <= gpus), None)
    short = short_of(preferred, gpus)
    if fitting is None:
        return Choice(None, short)
    if waited < patience and not hopeless:
        return Choice(None, f"{short}; {fitting.name} starts in {patience - waited:.0f} s if it stays so")
    why = "waiting cannot help" if hopeless else f"patience of {patience:.0f} s is over"
    return Choice(fitting, f"{short}; {why}")


def better(layouts: Sequence[Layout], current: Layout, gpus: int) -> Layout | None:
    """The most preferred layout above ``current`` that fits ``gpus``; None where there is none."""
    above = layouts[: [layout.name for layout in layouts].index(current.name)]
    return next((layout for layout in above if layout.gpus <= gpus), None)


def short_of(preferred: Layout, gpus: int) -> str:
    """What a layout lacks."""
    return f"{gpus} of the {preferred.gpus} GPUs of {preferred.name} are there"


def may_move_up(policy: Policy, there_for: float, now: datetime.datetime, requested: bool) -> tuple[bool, str]:
    """Whether the operator's policy lets a better layout start now, and what it waits for, in a text that stays the same
    while the wait does.

    Args:
        there_for: seconds since the GPUs of the better layout are there without a break.
        now: with a time zone.
        requested: the operator asked for it.
    """
    if there_for < policy.stable_for:
        return False, f"its GPUs are to stay for {policy.stable_for:.0f} s first"
    if requested or policy.move_up == "at_once":
        return True, ""
    if policy.move_up == "window" and policy.window is not None:
        return (True, "") if policy.window.is_open(now) else (False, f"it moves up in the window {policy.window} UTC")
    return False, "it moves up by command: python3 -m lockstep.engine.cli move-up"
