"""How a wave went: over the members that were planned, never over those that happen to be left. Pure."""

from __future__ import annotations

import dataclasses
import itertools
import os.path
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..core.stop import Stop
from ..core.wording import printable
from .rollback_target import UNCHANGED, Targets, next_step, serves_again
from .states import RollbackOutcome, Stage

_LONGEST = 8000
_MOST_PATHS = 100
DONE_ALONE = frozenset({Stage.DRAIN_REPLICA, Stage.RESTORE_SETTINGS, Stage.RESTORE_DRIVER, Stage.HOST_GATES})
"""Stages of a rollback that a host goes through whatever became of its mates."""
UNTRUSTED_AFTER = frozenset({Stage.APPLY, Stage.HOST_GATES, Stage.STAMP_HOSTS, Stage.REPLICA_GATES})
"""Stages whose failure leaves a host that must not serve."""

_ONCE_THEY_ANSWER = (
    "None of its hosts can be reached, so it could not be rolled back. What was being changed is in quarantine: it stays out "
    "of Ray.\nOnce they answer, run the same command again: it finishes them first."
)
_BECAME = {
    RollbackOutcome.DRAINED_IN_ROUTER: (
        "Rolled back; it passed its gates again and serves, but is still drained in HAProxy; next run enables it:",
    ),
    RollbackOutcome.FAILED: ("It could not be rolled back; hosts that failed stay in quarantine:",),
}


Kept = Mapping[str, Any]
"""What Ansible keeps for a host: a task's result, or a variable that a play has set."""


@dataclasses.dataclass(frozen=True)
class Begun:
    """The stage that began last on a host, of its wave or of the wave's rollback."""

    stage: Stage
    rolling_back: bool

    @classmethod
    def parse(cls, kept: Kept) -> Begun:
        """From the variable in which a host keeps it, with the stage by its file's name."""
        return cls(stage_of(str(kept["stage"])), bool(kept["rolling_back"]))


@dataclasses.dataclass(frozen=True)
class Failure:
    """What a host keeps of a stage that failed on it.

    Attributes:
        stage: the stage; ``rolling_back`` says whether it was one of the wave's rollback.
        task: name of the task that failed.
        msg: its message; never a template again.
        evidence: paths on the host.
        next: the command that repairs it, where the message came with one.
        lost: the host became unreachable, and nothing more is known of it.
    """

    stage: Stage
    rolling_back: bool
    task: str
    msg: str
    evidence: tuple[str, ...] = ()
    next: str = ""
    lost: bool = False

    @classmethod
    def of_result(cls, result: Kept, stage: Stage, rolling_back: bool, task: str) -> Failure:
        """From a failed task's result, whatever its host put there. New strings throughout: what a message quotes is never
        a template again."""
        gate = result.get("gate")
        evidence = result.get("evidence") or (gate.get("evidence") if isinstance(gate, Mapping) else None)
        following = result.get("next")
        paths = [evidence] if isinstance(evidence, str) else evidence if isinstance(evidence, (list, tuple)) else []
        return cls(
            stage=stage,
            rolling_back=rolling_back,
            task=f"{task}",
            msg=_without_next(_message(result), _plain(following)) or "it gave no message",
            evidence=tuple(_plain(path) for path in paths[:_MOST_PATHS]),
            next=_plain(following),
        )

    @classmethod
    def of_lost(cls, last: Begun | None, rolling_back: bool) -> Failure | None:
        """Of a host that became unreachable, by the stage that began last on it; None where it was lost in the rollback
        alone, and the wave is asked about."""
        if last is None:
            return cls(Stage.UNKNOWN, rolling_back, "", "unreachable since before its first stage", lost=True)
        if last.rolling_back is rolling_back:
            return cls(last.stage, rolling_back, "", "it became unreachable", lost=True)
        if last.rolling_back:
            return None
        return cls(
            Stage.UNKNOWN, True, "", f"unreachable since stage {last.stage}, so nothing was rolled back", lost=True
        )

    @classmethod
    def parse(cls, kept: Kept) -> Failure:
        """From the variable in which a host keeps it."""
        return cls(
            stage=Stage(str(kept["stage"])),
            rolling_back=bool(kept["rolling_back"]),
            task=str(kept["task"]),
            msg=str(kept["msg"]),
            evidence=tuple(kept["evidence"]),
            next=str(kept["next"]),
            lost=bool(kept["lost"]),
        )

    def __str__(self) -> str:
        if self.stage is Stage.UNKNOWN:
            return self.msg
        return f"stage {self.stage}{' of the rollback' if self.rolling_back else ''}: {self.msg}"


def _message(result: Kept) -> str:
    """What a task failed with, with the reasons that stand in a field of their own."""
    message = _plain(result.get("msg") or result.get("module_stderr"))
    return f"{message}\n{_plain(result['reasons'])}" if isinstance(result.get("reasons"), str) else message


def _without_next(message: str, following: str) -> str:
    """The message less the command at its end: a verdict gives one of its own."""
    return message.rstrip().removesuffix(f"Next: {following}").rstrip() if following else message


def _plain(value: Any) -> str:
    """Text that a host gave, as people may read it, and no template."""
    try:
        text = "" if value is None else f"{value}"
    except (ValueError, RecursionError):  # a number of thousands of digits, or a nest of lists
        return "what it gave cannot be shown"
    return printable(text[:_LONGEST]).replace("{{", "{ {").replace("{%", "{ %")


Failures = Mapping[str, Failure]
"""Host to its failure."""


def sizes(waves: Sequence[int]) -> list[int]:
    """Sizes of the runs of equal wave numbers, in order; ``[1]`` for none, which ``serial`` wants for an empty play."""
    return [len(list(group)) for _wave, group in itertools.groupby(waves)] or [1]


def stage_of(file: str) -> Stage:
    """The stage by the name of its file."""
    return Stage(file.removesuffix(".yml"))


def failures(
    members: Sequence[str],
    batch: Collection[str],
    kept: Mapping[str, Sequence[Failure]],
    rolling_back: bool,
    begun: Mapping[str, Begun],
) -> dict[str, Failure]:
    """The failure of each member that has one, of the wave or, with ``rolling_back``, of its rollback.

    Args:
        members: the wave's hosts as planned.
        batch: hosts that Ansible still speaks to; one that became unreachable is missing from it.
        kept: what failed on each host.
        rolling_back: which of the two is asked about.
        begun: the stage that began last on each host; none where none did.
    """
    found: dict[str, Failure] = {}
    for host in members:
        own = next((failure for failure in kept.get(host, ()) if failure.rolling_back is rolling_back), None)
        if own is not None:
            found[host] = own
        elif host not in batch and (lost := Failure.of_lost(begun.get(host), rolling_back)):
            found[host] = lost
    return found


def runs_rollback_stage(stage: Stage, itself: bool, mates: Collection[str]) -> bool:
    """Whether a host takes part in a ``stage`` of its wave's rollback.

    What a host does by itself it does whatever became of the others: settings and driver are restored wherever they can be.
    What the hosts of a replica do together would only wait for one that failed, to its whole deadline.

    Args:
        stage: the stage.
        itself: whether rolling this host back has failed already.
        mates: hosts of its replica whose rollback failed, or that cannot be reached.
    """
    return not itself and (stage in DONE_ALONE or not mates)


def stays_in_quarantine(kept: Sequence[Failure], rolls_back: bool) -> bool:
    """Whether a host of a failed wave must stay out (quarantine kind ``failed``).

    One whose rollback failed must, unless only a router could not be reached: then it has passed its gates and serves,
    and the change that stays open has the next run enable it. Where there is nothing to roll back to
    (``rolls_back``), one that failed a change or a gate must.
    """
    rollback = [failure for failure in kept if failure.rolling_back]
    if any(failure.stage is not Stage.ENABLE_IN_ROUTER for failure in rollback):
        return True
    return not rolls_back and any(not each.rolling_back and each.stage in UNTRUSTED_AFTER for each in kept)


def reasons(kept: Sequence[Failure]) -> str:
    """Why a host stays in quarantine: how its wave failed, and how its rollback did, where either touched it."""
    return "; then ".join(str(failure) for failure in kept) or "its wave failed"


def _item(host: str, failure: Failure, following: str) -> list[str]:
    """A failure as an item of a list: its further lines, its evidence and its own command below it, unless that is what the
    list ends with."""
    first, *rest = f"{host}, {failure}".splitlines()
    folders = sorted({os.path.dirname(path) for path in failure.evidence})
    rest += [f"evidence: {host}:{path}" for path in folders]
    where = "" if _is_for_controller(failure.next) else f" on {host}"
    rest += [f"to do{where}: {failure.next}"] if failure.next not in ("", following) else []
    return [f"  - {first}", *(f"    {line}" for line in rest)]


def _is_for_controller(command: str) -> bool:
    """Whether a failure's command is one of Ansible's; any other, such as ``journalctl``, is for the host itself."""
    return command.startswith(("ansible", "cd "))


def rollback_outcome(left: Failures, back: Targets) -> RollbackOutcome:
    """What became of a failed wave.

    Args:
        left: the failures of its rollback.
        back: what each host was to be rolled back to; without those that had nothing to go back to.
    """
    if left:
        drained = all(failure.stage is Stage.ENABLE_IN_ROUTER for failure in left.values())
        return RollbackOutcome.DRAINED_IN_ROUTER if drained else RollbackOutcome.FAILED
    return RollbackOutcome.ROLLED_BACK if back else RollbackOutcome.NOT_POSSIBLE


def verdict(
    failed: Failures, left: Failures, back: Targets, where: tuple[int, int], replica: str, members: Collection[str],
    folder: str = "", drivers: Collection[str] = (),
) -> Stop:  # fmt: skip
    """Closing message of a run whose wave failed: causes, hosts, evidence, what became of it, the next command to type.

    Args:
        failed: the wave's failures.
        left: the failures of its rollback.
        back: what each host was to be rolled back to; without those that had nothing to go back to.
        where: number of the wave, and of all.
        replica: whose hosts are to be examined next.
        members: the wave's hosts as planned.
        folder: where the run's report and evidence lie on the controller.
        drivers: versions that the wave was to bring; empty where it was not about drivers.
    """
    became = rollback_outcome(left, back)
    lost = all(host in left and left[host].lost for host in members)
    unchanged = all(failure.stage in UNCHANGED for failure in failed.values())
    own = next((each.next for each in failed.values() if _is_for_controller(each.next)), "") if unchanged else ""
    if lost:
        step = Stop(_ONCE_THEY_ANSWER, f"ansible {','.join(members)} -m ansible.builtin.ping")
    elif own:
        step = Stop("Then run the same command again: it goes on with this wave.", own)
    elif back and became is not RollbackOutcome.FAILED:
        step = next_step(back, replica, drivers)
    else:
        step = Stop("", f"ansible-playbook playbooks/diagnose.yml --limit {replica}")
    on_its_way = f" on its way to driver {' and '.join(sorted(set(drivers)))}" if drivers else ""
    lines = [f"Wave {where[0]} of {where[1]} failed{on_its_way}; no further wave begins."]
    lines += [line for host, failure in failed.items() for line in _item(host, failure, step.next)]
    if unchanged:
        lines.append("Nothing of this wave was drained or changed.")
    elif not lost:
        lines += _BECAME.get(became, ()) if became is not RollbackOutcome.ROLLED_BACK else serves_again(back)
    lines += [
        line
        for host, failure in left.items()
        if not (failure.lost and (unchanged or (lost and host in failed)))
        for line in _item(host, failure, step.next)
    ]
    lines += [f"Report and evidence: {folder}"] if folder else []
    return Stop("\n".join([*lines, *filter(None, [step.cause])]), step.next)
