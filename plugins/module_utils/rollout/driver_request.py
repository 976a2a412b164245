"""The driver that a host is to run, against its branch, known issues and the CUDA of the serving environment. Pure."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence

from ..core.stop import Stop
from ..driver import branches, cuda_release, known_issues
from ..driver import packages as driver_packages
from .observed import HostState
from .settings import Settings


@dataclasses.dataclass(frozen=True)
class Known:
    """Facts about the world that a plan is checked by; what is left out is not checked.

    Attributes:
        issues: rows of data/known_issues.yml.
        branches: rows of data/driver_branches.yml.
        cuda: rows of data/cuda_minimum_driver.yml.
        today: by which branches have ended.
    """

    issues: Sequence[known_issues.Issue] = ()
    branches: Sequence[branches.Row] = ()
    cuda: Sequence[cuda_release.CudaRelease] = ()
    today: datetime.date = datetime.date.min


NOTHING_KNOWN = Known()


def findings(
    host: str,
    settings: Settings,
    state: HostState,
    known: Known,
    promised: Mapping[str, str | None] | None = None,
) -> tuple[list[Stop], list[Stop]]:
    """Refusals, and warnings, of what the inventory declares for this host.

    ``promised`` is the serving environment that the host will have, where that will change.
    """
    facts = _facts(settings, state, promised or state.runtime)
    refusals, warnings = _issues(host, settings, facts, known.issues)
    unfit = driver_packages.combination_refusal(facts["driver"], facts["cuda"], known.cuda)
    if unfit:
        refusals.append(Stop(unfit, where=host))
    elif older := cuda_release.warning(facts["driver"], facts["cuda"], known.cuda):
        warnings.append(Stop(older, where=host))
    listed = branches.parse(known.branches)
    branch = branches.of(facts["driver"], listed)
    source = str(settings.get("nvidia_driver_source"))
    if source != "verify" and (has := branch or branches.newest(facts["driver"], listed)):
        gone = branches.refusal(has, str(facts["flavor"]))
        refusals += [Stop(gone, where=host)] if gone else []
    if ended := branches.unlisted(facts["driver"], listed):
        warnings.append(Stop(ended, where=host))
    if branch:
        about = branches.warnings(
            branch, known.today, source=source, distribution=state.distribution, release=state.version
        )
        warnings += [Stop(line, where=host) for line in about]
    return refusals, warnings


def _facts(settings: Settings, state: HostState, runtime: Mapping[str, str | None]) -> known_issues.Facts:
    version = settings.get("nvidia_driver_version")
    return known_issues.facts(
        driver=None if version is None else str(version),
        fabric_manager=_fabric_manager(settings, state),
        runtime=runtime,
        kernel=state.kernel,
        gpus=state.driver.gpus,
        flavor=str(settings.get("nvidia_driver_flavor") or "open"),
        arch=state.arch,
        links=state.machine.links,
        uptime=state.uptime,
        tensor_parallel_hosts=tensor_parallel_hosts(settings),
    )


def tensor_parallel_hosts(settings: Settings) -> int | None:
    """Over how many hosts one tensor parallel group may go, by what is declared; None where that is not known."""
    sizes = [settings.get("vllm_server_tensor_parallel_size")]
    sizes += [
        layout.get("tensor_parallel_size")
        for layout in settings.get("vllm_server_layouts") or ()
        if isinstance(layout, Mapping)
    ]
    try:
        largest = max(int(size) for size in sizes if size is not None)
        return math.ceil(largest / int(settings["gpu_host_gpus"]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _fabric_manager(settings: Settings, state: HostState) -> str | None:
    """The version that fabric manager will have: nvidia_driver brings it to the driver's, unless it only verifies."""
    if not state.driver.fabric_manager or settings.get("nvidia_driver_source") == "verify":
        return state.driver.fabric_manager_version
    return settings.get("nvidia_driver_version")


def _issues(
    host: str, settings: Settings, facts: known_issues.Facts, issues: Sequence[known_issues.Issue]
) -> tuple[list[Stop], list[Stop]]:
    """Known-bad combinations refuse where they are not overridden by name; those warn, as do suspect ones and time bombs."""
    overridden = set(settings.get("nvidia_driver_allow_known_bad") or [])
    matches = known_issues.match(issues, facts)
    bad = known_issues.refusals(matches, sorted(overridden))
    refusals = [Stop(f"{_line(issue)}. To go on all the same: {_override(issue.id)}", where=host) for issue in bad]
    warnings = [Stop(_line(issue), where=host) for issue in matches if issue not in bad]
    # Those that have gone off match as they are.
    ahead = [bomb for bomb in known_issues.time_bombs(issues, facts) if bomb.days_left > 0]
    return refusals, [*warnings, *(Stop(str(bomb), where=host) for bomb in ahead)]


def _line(issue: known_issues.Match) -> str:
    return f"{issue.effect} ({issue.id}, {issue.confidence} confidence; {issue.source}). {issue.remediation}"


def _override(issue: str) -> str:
    return f'-e \'{{"nvidia_driver_allow_known_bad": ["{issue}"]}}\''
