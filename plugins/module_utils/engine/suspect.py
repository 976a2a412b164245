"""Who keeps an engine from generating: decided from what the replica's hosts saw of their own ranks."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Mapping, Sequence

from ..ray.codes import RankState
from ..ray.ranks import Rank
from ..ray.stacks import Answer, evidence_of
from .record import Suspect, Where
from .states import SuspectCode

MOST = 8
_NAMED = 4
_KERNEL = {
    RankState.STOPPED: "stopped (state T)",
    RankState.UNKILLABLE: "stuck in the kernel (state D)",
}


@dataclasses.dataclass(frozen=True)
class OwnProcess:
    """One of the engine's processes on the head that is no rank, such as its core.

    Attributes:
        name: as it calls itself.
    """

    name: str
    pid: int
    state: RankState


@dataclasses.dataclass(frozen=True)
class _Seen:
    host: str
    rank: Rank

    @property
    def where(self) -> Where:
        return Where(self.host, self.rank.rank, self.rank.pid)

    @property
    def frame(self) -> str:
        return self.rank.frames[0] if self.rank.frames else ""

    def __str__(self) -> str:
        named = "a rank" if self.rank.rank is None else f"rank {self.rank.rank}"
        return f"{named} on {self.host} (pid {self.rank.pid})"


def find(
    hosts: Collection[str], answers: Mapping[str, Answer], head: str = "", own: Sequence[OwnProcess] = ()
) -> Suspect | None:
    """Name whom to look at first; None where no host was asked, or none could be.

    Args:
        hosts: of the replica, whose GPUs the engine holds.
        answers: of those that answered.
        head: the host that ``own`` run on.
        own: the engine's processes there that are no ranks.
    """
    if not answers and not any(process.state is RankState.STOPPED for process in own):
        return None
    seen = _seen(answers)
    found = (
        _stopped(seen, head, own)
        or _unkillable(seen)
        or _absent(hosts, answers)
        or _silent(hosts, answers)
        or _by_frames(seen)
    )
    first = {one.host for one in found.where}
    order = sorted(answers, key=lambda host: (host not in first, host))
    evidence = tuple(filter(None, (evidence_of(host, answers[host]) for host in order)))
    return dataclasses.replace(found, where=found.where[:MOST], evidence=evidence[:MOST])


def _seen(answers: Mapping[str, Answer]) -> list[_Seen]:
    seen = [
        _Seen(host, rank)
        for host, answer in answers.items()
        for rank in (answer.sight.ranks if answer.sight is not None else ())
    ]
    return sorted(seen, key=lambda one: (one.rank.rank is None, one.rank.rank or 0, one.host, one.rank.pid))


def _stopped(seen: Sequence[_Seen], head: str, own: Sequence[OwnProcess]) -> Suspect | None:
    ranks = [one for one in seen if one.rank.state is RankState.STOPPED]
    others = [process for process in own if process.state is RankState.STOPPED]
    names = [*map(str, ranks), *(f"{process.name} on {head} (pid {process.pid})" for process in others)]
    where = [*(one.where for one in ranks), *(Where(head, None, process.pid) for process in others)]
    return _in_kernel(SuspectCode.STOPPED, RankState.STOPPED, names, where)


def _unkillable(seen: Sequence[_Seen]) -> Suspect | None:
    ranks = [one for one in seen if one.rank.state is RankState.UNKILLABLE]
    return _in_kernel(SuspectCode.UNKILLABLE, RankState.UNKILLABLE, list(map(str, ranks)), [one.where for one in ranks])


def _in_kernel(code: SuspectCode, state: RankState, names: Sequence[str], where: Sequence[Where]) -> Suspect | None:
    if not names:
        return None
    verb = "is" if len(names) == 1 else "are"
    return Suspect(code, f"{_listed(names)} {verb} {_KERNEL[state]}", tuple(where))


def _absent(hosts: Collection[str], answers: Mapping[str, Answer]) -> Suspect | None:
    empty = [
        host for host in sorted(hosts) if (answer := answers.get(host)) and answer.sight and not answer.sight.ranks
    ]
    if not empty:
        return None
    return Suspect(SuspectCode.NO_RANK, f"no rank runs on {_listed(empty)}", tuple(map(Where, empty)))


def _silent(hosts: Collection[str], answers: Mapping[str, Answer]) -> Suspect | None:
    silent = [host for host in sorted(hosts) if host not in answers]
    stuck = [host for host in sorted(hosts) if (answer := answers.get(host)) and answer.sight is None]
    said = [f"the Ray service of {_listed(silent)} does not answer"] if silent else []
    said += [f"{_listed(stuck)} could not look at its ranks in time"] if stuck else []
    if not said:
        return None
    return Suspect(SuspectCode.SILENT_HOST, "; ".join(said), tuple(map(Where, [*silent, *stuck])))


def _by_frames(seen: Sequence[_Seen]) -> Suspect:
    """From where the ranks are; those that wait for another one are in one place, the one that they wait for is not."""
    all_run = "its one rank runs" if len(seen) == 1 else f"all {len(seen)} ranks run"
    if not seen or not all(one.frame for one in seen):
        return Suspect(SuspectCode.UNSEEN, f"{all_run}; py-spy may not see where")
    (place, most), *others = collections.Counter(one.frame for one in seen).most_common()
    if not others:
        return Suspect(SuspectCode.ALIKE, f"{all_run} in {place}", tuple(one.where for one in seen))
    if len(others) == 1 and others[0][1] == 1 and most > 1:
        (odd,) = (one for one in seen if one.frame != place)
        return Suspect(SuspectCode.ODD, f"{odd} is in {odd.frame}, all others are in {place}", (odd.where,))
    places = [f"{one} is in {one.frame}" for one in seen]
    return Suspect(SuspectCode.DIFFER, _listed(places), tuple(one.where for one in seen))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
