"""Waiting for a layout's hosts: the preferred one's, a smaller one's when patience is over, and a better one's later."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable

from ..ray.codes import WaitCode
from ..ray.wait import Waited
from . import layouts, state
from .cluster import Members, ReplicaCluster
from .config import Config
from .layouts import Choice, Layout
from .reporter import Reporter
from .states import GiveUp

_TICK = 0.5
_AGREES_WITHIN = 5.0
_FREE_WITHIN = 60.0
_MEMBERS_EVERY = 3.0


class LayoutWait:
    """Chooses the layout to start.

    Args:
        clock: monotonic seconds.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        config: Config,
        cluster: ReplicaCluster,
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config, self._cluster, self._reporter = config, cluster, reporter
        self._clock, self._sleep = clock, sleep

    def choose(self) -> Layout:
        """The best layout whose hosts and free GPUs are there, waited for with the patience that the policy asks.

        Raises:
            GiveUp: none can come, or none came before the deadline.
        """
        preferred, *others = self._config.layouts
        deadline, patience = self._config.deadlines.wait, self._config.policy.patience
        began = self._clock()
        waited = self._wait(preferred, min(patience, deadline) if others else deadline)
        while not waited.ready:
            spent = self._clock() - began
            if not others or spent >= deadline:
                raise GiveUp(f"{preferred.name} cannot start ({waited.code}): {waited.reason}")
            hopeless = waited.code != WaitCode.DEADLINE
            choice = layouts.choose(self._config.layouts, self._cluster.members().gpus, spent, patience, hopeless)
            if choice.layout is not None and self._wait(choice.layout, _AGREES_WITHIN).ready:
                if choice.layout != preferred:
                    self._reporter.wait(choice.reason)
                return choice.layout
            waited = self._wait(preferred, min(_AGREES_WITHIN, deadline - spent))
            if not waited.ready:
                self._sleep(_TICK)
        return preferred

    def until_free(self, layout: Layout) -> None:
        """Wait for the GPUs that an engine of this layout has just let go."""
        self._wait(layout, _FREE_WITHIN)

    def _wait(self, layout: Layout, deadline: float) -> Waited:
        return self._cluster.wait(layout, deadline, self._reporter.wait)


class MoveUp:
    """Checks now and then whether a better layout may take over.

    Args:
        members: who is there now.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: Config,
        layout: Layout,
        members: Callable[[], Members],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._layout, self._members, self._clock = config, layout, members, clock
        self._since: float | None = None
        self._sampled = -_MEMBERS_EVERY

    def choose(self) -> Choice | None:
        """The layout to move up to now, or why this one stays; None where nothing new is known."""
        now = self._clock()
        preferred = self._config.layouts[0]
        if self._layout == preferred:
            state.follow_move_up()
            return None
        if now - self._sampled < _MEMBERS_EVERY:
            return None
        self._sampled = now
        seen = self._members()
        if not seen.known:
            return None
        larger = layouts.better(self._config.layouts, self._layout, seen.gpus)
        if larger is None:
            self._since = None
            return Choice(None, layouts.short_of(preferred, seen.gpus))
        self._since = now if self._since is None else self._since
        clock = datetime.datetime.now(datetime.timezone.utc)
        requested = state.move_up_requested()
        allowed, why = layouts.may_move_up(self._config.policy, now - self._since, clock, requested)
        if allowed:
            state.follow_move_up()
            return Choice(larger, "")
        return Choice(None, f"{larger.name} could serve, {why}")
