"""What it takes to undo a driver change on a host: nothing, where it did not get as far as to change anything. Pure.

A rollback undoes what was done, and no more: packages that are as they were are not installed again, so that whatever kept
the change from going on (a repository that is gone, another package's failing script) cannot keep the host from serving.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..core.codes import Code
from . import dpkg
from .change_record import Before, Driver
from .state import DriverState


class UndoStep(Code):
    """What undoing a change may need, in the order in which it is done."""

    REPAIR = "repair"
    """dpkg was stopped half-way, with none of the driver's packages in its hands."""
    INSTALL = "install"
    """Packages of the driver were changed: those of the last known good one come back, through apt."""
    HOLD = "hold"
    """The packages are as they were, their hold or their pin is not."""
    LOAD = "load"
    """Another module is loaded, or none."""


def before(packages: dpkg.Packages, preferences: str | None, domain: str | None = None) -> Before:
    """What a change is about to change: every driver package with its version, and the preferences that pin them."""
    versions = {name: package["version"] for name, package in packages.items()}
    found: Before = {"packages": versions, "preferences": preferences}
    return {**found, "nvlink_domain": domain} if domain else found


def undo(target: Driver, was: Before | None, now: DriverState, preferences: str | None) -> dict[UndoStep, str]:
    """What it takes to bring a host back: the steps, each with its reason; none where nothing was changed.

    Args:
        target: the driver that was verified before the change.
        was: what the change found; None where its record does not have it.
        now: the driver as the host has it now.
        preferences: what pins it now; None where nothing does.
    """
    steps: dict[UndoStep, str] = {}
    if target.get("source") != "verify":
        changed = _changed(target["version"], was, now["packages"])
        if changed:
            steps[UndoStep.INSTALL] = changed
        elif now["dpkg_interrupted"]:
            steps[UndoStep.REPAIR] = "dpkg was interrupted half-way"
        loose = None if changed else _loose(now["packages"], was, preferences)
        if loose:
            steps[UndoStep.HOLD] = loose
    if now["loaded_version"] != target["version"]:
        steps[UndoStep.LOAD] = f"driver {now['loaded_version'] or 'absent'} is loaded, {target['version']} was"
    return steps


def _changed(version: str, was: Before | None, packages: dpkg.Packages) -> str | None:
    """How the packages are no longer those of ``version``; None where they are."""
    broken = sorted(name for name, package in packages.items() if package["broken"])
    if broken:
        return f"left half-way by dpkg: {', '.join(broken)}"
    versions = dpkg.driver_versions(packages)
    if versions != [version]:
        return f"package {', '.join(versions) or 'absent'}, {version} was"
    then = was["packages"] if was else {}
    if dpkg.driver_versions(_as_packages(then)) != [version]:
        return None  # what was found was another driver already, and does not show what this one consisted of
    there = {name: package["version"] for name, package in packages.items()}
    differing = sorted({name for name, _version in then.items() ^ there.items()})
    return f"no longer as before the change: {', '.join(differing)}" if differing else None


def _loose(packages: dpkg.Packages, was: Before | None, preferences: str | None) -> str | None:
    unheld = sorted(name for name, package in packages.items() if not package["hold"])
    if unheld:
        return f"not held: {', '.join(unheld)}"
    if preferences is None or (was and was["preferences"] is not None and preferences != was["preferences"]):
        return "pinned otherwise than before the change"
    return None


def _as_packages(versions: Mapping[str, str]) -> dict[str, dpkg.Package]:
    return {name: {"version": version, "hold": True, "broken": False} for name, version in versions.items()}
