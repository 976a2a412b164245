"""What a host of a failed wave can be taken back to: its last known good driver, the settings that were kept. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import TypedDict

from ..core.previous_settings import Summary
from ..core.stop import Stop
from ..driver.change_record import StoredRecord
from .states import Stage

UNCHANGED = frozenset({Stage.UNKNOWN, Stage.CHECK_PACKAGES, Stage.KEEP_SETTINGS})
"""Stages in which nothing that serves was touched: a wave that fails in them is left as it is."""


@dataclasses.dataclass(frozen=True)
class RollbackTarget:
    """What one host is to be taken back to; false where there is nothing.

    Attributes:
        driver: the last known good one, where a change from it is in progress.
        settings: whether its previous settings are kept (module_utils/core/previous_settings.py).
        restored: of these, what was taken back, for people; empty before the rollback, and where nothing had been changed.
    """

    driver: str | None = None
    settings: bool = False
    restored: str = ""

    def __bool__(self) -> bool:
        return self.driver is not None or self.settings


class Probed(TypedDict, total=False):
    """What of a probe's answer decides a host's target."""

    change: StoredRecord | None
    previous: Summary | None


Targets = Mapping[str, RollbackTarget]
"""Host to its target, for the hosts that have one."""


def target(state: Probed, restored: str = "") -> RollbackTarget:
    """The target of one host.

    Args:
        state: what a probe before the rollback observed; empty where there is none. Settings whose record is damaged count
            as kept: restoring them fails with the reason, and the host stays out.
        restored: what the rollback has taken back of the settings.
    """
    record = state.get("change")
    change = record.get("change") if record else None
    origin = change["from"] if change else None
    return RollbackTarget(str(origin["version"]) if origin else None, bool(state.get("previous")), restored)


def targets(of_host: Targets, failed_in: Collection[Stage]) -> Targets:
    """The targets of a wave; none where it failed before anything was changed, so that nothing that serves is touched.

    Args:
        of_host: the target of each member.
        failed_in: the stages that members failed or were lost in.
    """
    if failed_in and all(stage in UNCHANGED for stage in failed_in):
        return {}
    return {host: each for host, each in of_host.items() if each}


def serves_again(back: Targets) -> list[str]:
    """The lines that say what a wave was rolled back to, and what was taken back."""
    drivers = ", ".join(f"{host} on {each.driver}" for host, each in sorted(back.items()) if each.driver)
    lines = [f"Rolled back; it passed its gates again and serves{f': {drivers}' if drivers else ' as before'}."]
    taken = [(host, each.restored) for host, each in sorted(back.items()) if each.restored]
    return lines + [f"  - {host}, taken back: {what}" for host, what in taken]


def next_step(back: Targets, replica: str, drivers: Collection[str] = ()) -> Stop:
    """What to repair, and then to type, by what was taken back.

    Args:
        back: the targets of the wave.
        replica: whose hosts failed.
        drivers: versions that the wave was to bring.
    """
    if any(each.restored for each in back.values()) or not drivers:
        remark = "The inventory still declares what failed: repair that first."
        return Stop(remark, f"ansible-playbook site.yml --limit {replica}")
    version = sorted(set(drivers))[-1]
    remark = "Repair the cause first, or give another version."
    return Stop(remark, f"ansible-playbook playbooks/upgrade_driver.yml -e nvidia_driver_version={version}")
