"""Whether a planned wave may begin at this moment: requests, maintenance window, capacity floor. Pure."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Mapping, Sequence

from ..core.lock_record import Requested
from ..core.stop import Stop
from ..core.window import Window
from ..core.wording import names
from .states import RequestAction
from .waves import until_open

_AFTER = {
    RequestAction.PAUSE: "ansible all -m lockstep.vllm.rollout_request -a action=resume",
    RequestAction.ABORT: "ansible-playbook playbooks/upgrade_driver.yml -e rollout_action=abort",
}
_STATUS = "ansible-playbook playbooks/status.yml"
_REMOVE = "ansible-playbook playbooks/remove.yml"


@dataclasses.dataclass(frozen=True)
class Request:
    """What a person asks of the roll (the record that rollout_request leaves on every head)."""

    action: RequestAction
    by: str
    at: str
    reason: str = ""

    @classmethod
    def parse(cls, record: Requested | None) -> Request | None:
        """From the record; None where there is none, or none that a roll heeds."""
        known = record or {}
        action = next((action for action in _AFTER if action == known.get("action")), None)
        if action is None:
            return None
        return cls(action, str(known.get("by") or "somebody"), str(known.get("at")), str(known.get("reason") or ""))


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Who answers requests at this moment.

    Attributes:
        floor: how many replicas must.
        unready: per head, why its replica does not; empty where it does. A head that was not asked is missing.
        taken: hosts of the wave that is about to begin.
    """

    floor: int
    unready: Mapping[str, str]
    taken: Collection[str]

    @property
    def left(self) -> int:
        """How many go on answering."""
        return sum(not why and head not in self.taken for head, why in self.unready.items())

    def lack(self, what: str = "this wave") -> str | None:
        """Why ``what`` would leave too few; None where it leaves enough, or takes nobody who answers."""
        answer = [head for head, why in self.unready.items() if not why]
        if self.left >= self.floor or self.left == len(answer):
            return None
        away = [f"{head}: {why}" for head, why in self.unready.items() if why]
        others = f" ({'; '.join(away)})" if away else ""
        return (
            f"of {len(self.unready)} replicas {len(answer)} answer requests now{others}: {what} would leave {self.left}, "
            f"and the capacity floor is {self.floor}"
        )


def unmet(
    wave: tuple[int, int],
    request: Request | None,
    window: Window | None,
    now: datetime.datetime,
    drains: bool,
    aborting: bool = False,
    capacity: Capacity | None = None,
) -> Stop | None:
    """The precondition that a planned wave does not meet; None where it may begin.

    Args:
        wave: its number, and how many there are.
        request: what people ask of the roll.
        window: the policy's maintenance window.
        now: the present moment, with a time zone.
        drains: whether the wave takes a replica that serves; one that does not may come up at any time.
        aborting: whether this run is itself what a request to abort asks for.
        capacity: who answers requests now; None where nobody was asked.
    """
    not_started = f"wave {wave[0]} of {wave[1]} not started; no serving replica changed"
    again = f"run the same command again: it goes on with wave {wave[0]}"
    if request and not (aborting and request.action is RequestAction.ABORT):
        reason = f" ({request.reason})" if request.reason else ""
        cause = f"{request.by} asked to {request.action}{reason} at {request.at}; {not_started}"
        resumes = f"\nOnce it is resumed, {again}." if request.action is RequestAction.PAUSE else ""
        return Stop(f"{cause}{resumes}", _AFTER[request.action])
    if drains and window and not window.is_open(now):
        cause = f"the maintenance window {window} UTC is closed: {until_open(window, now)}; {not_started}"
        return Stop(f"{cause}\nThen {again}.", _STATUS)
    lack = capacity.lack() if capacity is not None and drains else None
    if lack:
        return Stop(f"{lack}; {not_started}\nRepair what does not serve, then {again}.", _STATUS)
    return None


def removal(replicas: Sequence[str], capacity: Capacity) -> Stop | None:
    """Why ``replicas`` cannot be removed now; None where enough others answer requests, or none of these does."""
    lack = capacity.lack(f"removing {names(replicas)}")
    if lack is None:
        return None
    anyway = f"{_REMOVE} --limit {','.join(replicas)} -e rollout_capacity_floor={capacity.left}"
    if any(why for head, why in capacity.unready.items() if head not in capacity.taken):
        return Stop(
            f"{lack}; nothing was done. Repair what does not serve first; to remove it all the same: {anyway}", _STATUS
        )
    return Stop(f"{lack}; nothing was done. Add a replica first, or lower the floor for this run", anyway)
