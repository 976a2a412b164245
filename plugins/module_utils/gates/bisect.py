"""Which hosts, or which pairs of hosts, are bad, found with few rounds of group trials.

Pure: ``next_round`` says which groups to try, in parallel, and ``evaluate`` what follows from the outcomes. A trial of a group
fails when one of its hosts, or the link between two of them, is bad. Rounds count, not trials: a round costs as much as
its slowest group, and a hang costs a deadline.

Round 1 tries disjoint pairs. A host that passes with anybody is *cleared*. Round 2 tries the suspects with cleared hosts
whom they have not met. Round 3 tries what still never passed with a further cleared host, and all others together. Up to
four hosts have all their pairs tried instead; two hosts are tried alone.

A host is accused when it fails alone, or when it passed with nobody and failed in at least two trials whose other hosts
are all cleared. A pair is accused when it failed and both its hosts are cleared. Whatever that leaves open is reported as
unclear, never accused. (A host all of whose tried links are bad is a bad host in this sense.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

Group = tuple[str, ...]
MOST_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Trial:
    """One group's outcome; ``passed`` is None when the trial was inconclusive (it still progressed at the deadline)."""

    hosts: Group
    passed: bool | None


Round = Sequence[Trial]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the trials prove.

    Attributes:
        hosts: bad hosts.
        pairs: pairs that fail though both hosts are good otherwise.
        unclear: hosts that may be bad; too little is known of them.
        rest: whether all hosts that are not named here passed together; None when that was not tried.
        rounds: rounds spent.
    """

    hosts: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    unclear: tuple[str, ...] = ()
    rest: bool | None = None
    rounds: int = 0


def locate(hosts: Sequence[str], run: Callable[[list[Group]], Sequence[bool | None]]) -> Finding:
    """Run rounds until nothing is left to learn.

    Args:
        hosts: all hosts of a group that failed as a whole.
        run: tries disjoint groups in parallel and returns, in the same order, which passed; None is inconclusive.
    """
    history: list[Round] = []
    while groups := next_round(hosts, history):
        history.append([Trial(group, passed) for group, passed in zip(groups, run(groups), strict=True)])
    return evaluate(hosts, history)


def next_round(hosts: Sequence[str], history: Sequence[Round]) -> list[Group]:
    """The disjoint groups to try next; empty when nothing is left to try."""
    count = len(history)
    if len(hosts) < 2 or count >= MOST_ROUNDS:
        return []
    if len(hosts) == 2:
        return [(host,) for host in hosts] if count == 0 else []
    if len(hosts) <= 4:
        return _every_pair(hosts)[count]
    if count == 0:
        return _pairs(hosts)
    cleared = _cleared(history)
    if count == 1:
        return _meet_cleared(hosts, history, cleared) if cleared else _other_pairs(hosts, history)
    return _last_round(hosts, history, cleared)


def evaluate(hosts: Sequence[str], history: Sequence[Round]) -> Finding:
    """What follows from all trials so far."""
    trials = [trial for past in history for trial in past]
    cleared = _cleared(history)
    bad = [host for host in hosts if _is_bad(host, trials, cleared)]
    pairs = sorted({sorted_pair(*trial.hosts) for trial in trials if _only_the_pair(trial, cleared)})
    paired = {host for pair in pairs for host in pair}
    unclear = [host for host in hosts if host not in cleared and host not in bad and host not in paired]
    if len(hosts) == 2 and history and all(trial.passed is not None for trial in trials):
        pairs, unclear = ([] if bad else [sorted_pair(*hosts)]), []
    return Finding(tuple(sorted(bad)), tuple(pairs), tuple(sorted(unclear)), _rest(hosts, history), len(history))


def _cleared(history: Sequence[Round]) -> set[str]:
    """Hosts that passed with somebody. Passing alone clears nobody: the fault may need company."""
    return {host for past in history for trial in past if trial.passed and len(trial.hosts) > 1 for host in trial.hosts}


def _is_bad(host: str, trials: Sequence[Trial], cleared: set[str]) -> bool:
    mine = [trial for trial in trials if host in trial.hosts]
    if any(trial.passed is False and trial.hosts == (host,) for trial in mine):
        return True
    if host in cleared:
        return False
    failed = [set(trial.hosts) - {host} for trial in mine if trial.passed is False and len(trial.hosts) > 1]
    return sum(others <= cleared for others in failed) >= 2


def _only_the_pair(trial: Trial, cleared: set[str]) -> bool:
    return trial.passed is False and len(trial.hosts) == 2 and set(trial.hosts) <= cleared


def sorted_pair(one: str, other: str) -> tuple[str, str]:
    """Two hosts in the order of their names."""
    first, second = sorted((one, other))
    return first, second


def _rest(hosts: Sequence[str], history: Sequence[Round]) -> bool | None:
    if len(hosts) <= 4 or len(history) < MOST_ROUNDS:
        return None
    together = [trial for trial in history[-1] if len(trial.hosts) > 2]
    return together[0].passed if together else None


def _every_pair(hosts: Sequence[str]) -> list[list[Group]]:
    """Three rounds in which each of three or four hosts meets each other one."""
    if len(hosts) == 3:
        first, second, third = hosts
        return [[(first, second), (third,)], [(first, third), (second,)], [(second, third), (first,)]]
    first, second, third, fourth = hosts
    return [
        [(first, second), (third, fourth)],
        [(first, third), (second, fourth)],
        [(first, fourth), (second, third)],
    ]


def _pairs(hosts: Sequence[str]) -> list[Group]:
    groups: list[Group] = [(hosts[index], hosts[index + 1]) for index in range(0, len(hosts) - 1, 2)]
    if len(hosts) % 2:
        groups[-1] = (*groups[-1], hosts[-1])
    return groups


def _met(host: str, history: Sequence[Round]) -> set[str]:
    return {other for past in history for trial in past if host in trial.hosts for other in trial.hosts}


def _match(hosts: Sequence[str], partners: Sequence[str], history: Sequence[Round]) -> list[Group]:
    """Give each host, as far as they go, a partner of its own whom it has not met."""
    free = list(partners)
    groups: list[Group] = []
    for host in hosts:
        met = _met(host, history)
        partner = next((one for one in free if one not in met), None)
        if partner is not None:
            free.remove(partner)
            groups.append((host, partner))
    return groups


def _meet_cleared(hosts: Sequence[str], history: Sequence[Round], cleared: set[str]) -> list[Group]:
    """Suspects with cleared hosts; the cleared that are left over meet each other anew, which tries further links."""
    suspects = [host for host in hosts if host not in cleared]
    groups = _match(suspects, [host for host in hosts if host in cleared], history)
    busy = {host for group in groups for host in group}
    idle = [host for host in hosts if host in cleared and host not in busy]
    half = len(idle) // 2
    return groups + _match(idle[:half], idle[half:], history)


def _other_pairs(hosts: Sequence[str], history: Sequence[Round]) -> list[Group]:
    """Every pair failed: try other pairs, in the hope that two good hosts meet."""
    groups: list[Group] = []
    left = list(hosts)
    while left:
        host = left.pop(0)
        for group in _match([host], left, history):
            groups.append(group)
            left.remove(group[1])
    return groups


def _last_round(hosts: Sequence[str], history: Sequence[Round], cleared: set[str]) -> list[Group]:
    """What never passed meets one more cleared host; the others run together, one host of each bad pair left out."""
    suspects = [host for host in hosts if host not in cleared]
    links = evaluate(hosts, history).pairs
    spared = [first for first, _ in links]
    willing = spared + [host for host in hosts if host in cleared and host not in spared]
    groups = _match(suspects, list(dict.fromkeys(willing)), history)
    busy = {host for group in groups for host in group} | set(spared)
    together = tuple(host for host in hosts if host in cleared and host not in busy)
    return groups + ([together] if len(together) > 1 else [])
