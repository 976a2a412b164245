"""Known issues of what a host runs now, from its probed state: for status and metrics, before a time bomb goes off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.system import uptime
from ..driver import known_issues
from .state import HostState


def time_bombs(state: HostState, issues: Sequence[known_issues.Issue]) -> list[known_issues.TimeBomb]:
    """Issues that come with this host's uptime, the next one first; none where its driver is not loaded or not known."""
    return known_issues.time_bombs(issues, facts(state))


def facts(state: HostState) -> known_issues.Facts:
    """What known issues are matched against; a part that the state lacks leaves its facts unknown."""
    driver, system, machine = (_part(state, name) for name in ("driver", "os", "machine"))
    manager = driver.get("fabric_manager") or {}
    links = list(machine.get("links") or ())
    fabric = driver.get("fabric") or {}
    if driver.get("nvswitches") or fabric.get("switch_managers") or fabric.get("spans_hosts"):
        links.append("nvlink")
    return known_issues.facts(
        driver=driver.get("loaded_version"),
        fabric_manager=manager.get("version") or manager.get("package_version"),
        runtime=_part(state, "runtime"),
        kernel=system.get("kernel"),
        gpus=[str(gpu.get("name")) for gpu in driver.get("gpus") or ()],
        flavor=driver.get("loaded_flavor"),
        arch=system.get("arch"),
        links=links,
        uptime=uptime(state.get("clock"), _part(state, "boot").get("since")),
    )


def _part(state: HostState, name: str) -> Mapping[str, Any]:
    value = state.get(name)
    return value if isinstance(value, Mapping) and not value.get("error") else {}
