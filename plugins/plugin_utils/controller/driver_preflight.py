"""Ask the hosts whose driver is due whether their packages let it be installed: one read-only call each, all at once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.core import typed
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import apt_lock, nvidia_repository
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.package_problems import Preflight
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.needs import Desired, DesiredDriver
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import HostState
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import progress

ROUND = 10.0
"""Seconds between two questions to a host whose apt is in use."""
FIELDS = (
    "version",
    "source",
    "flavor",
    "fabric_manager",
    "prebuilt_modules",
    *nvidia_repository.FIELDS,
    "repository_suite",
    "repository_components",
    "repository_username",
    "repository_password",
    "repository_client_certificate",
    "repository_client_key",
)
Ask = Callable[[Mapping[str, Any]], Mapping[str, Answer]]
"""Asks each host one request, all at once."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """What the hosts answered, in the words of a plan."""

    refusals: tuple[Stop, ...] = ()
    warnings: tuple[Stop, ...] = ()


def request(
    desired: Desired, driver: DesiredDriver, state: HostState, repositories: Sequence[nvidia_repository.TableRow]
) -> dict[str, Any]:
    """What ``driver.preflight.check`` is asked: what the inventory declares, with the driver that the run takes the host to.

    Args:
        desired, driver: these two.
        state: the host's distribution chooses NVIDIA's repository where the inventory names none.
        repositories: rows of data/nvidia_repositories.yml.
    """
    declared = {name: desired.settings.get(f"nvidia_driver_{name}") for name in FIELDS}
    declared |= {name: value for name, value in driver.items() if value is not None}
    return declared | nvidia_repository.resolve(declared, repositories, state.distribution, state.version)


def lock_deadline(desired: Mapping[str, Desired]) -> float:
    """Seconds that apt's locks are waited for: the longest that any host declares."""
    return max(
        (float(each.settings.get("nvidia_driver_apt_lock_deadline") or 0) for each in desired.values()), default=0.0
    )


def find(
    requests: Mapping[str, Any],
    ask: Ask,
    deadline: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Findings:
    """Ask every host; those whose apt is in use again, until ``deadline`` seconds have passed, saying who uses it."""
    started = clock()
    answers = _checked(ask(requests)) if requests else {}
    while busy := {host: locks for host, answer in answers.items() if (locks := _locks(answer))}:
        waited = clock() - started
        if waited >= deadline:
            break
        for host, locks in busy.items():
            progress.tell(host, waited, f"apt is in use: {apt_lock.shown(locks)}")
        sleep(min(ROUND, deadline - waited))
        answers |= _checked(ask({host: requests[host] for host in busy}))
    waited = clock() - started
    refusals: list[Stop] = []
    warnings: list[Stop] = []
    for host, answer in answers.items():
        refused, warned = findings(host, answer, waited)
        refusals += refused
        warnings += warned
    return Findings(tuple(refusals), tuple(warnings))


def findings(host: str, answer: Answer, waited: float) -> tuple[list[Stop], list[Stop]]:
    """What one host's last answer means: refusals and warnings."""
    if answer.value is None:
        cause = f"{host}: its packages cannot be looked at: {answer.error}"
        return [Stop(cause, f"ansible {host} -m lockstep.vllm.host_probe")], []
    refusals = [problem.stop(host) for problem in answer.value.problems if not problem.warns]
    if locks := _locks(answer):
        refusals.append(apt_in_use(host, f"apt is in use: {apt_lock.shown(locks)}", waited))
    return refusals, [Stop(problem.cause, where=host) for problem in answer.value.problems if problem.warns]


def apt_in_use(host: str, reason: str, waited: float) -> Stop:
    """What to do where apt is still in use after ``waited`` seconds; ``reason`` says by whom."""
    cause = f"{host}: {reason}; waited {waited:.0f} s. Let it end, or wait longer with nvidia_driver_apt_lock_deadline"
    return Stop(cause, "ansible-playbook playbooks/preflight.yml -e nvidia_driver_apt_lock_deadline=1800")


def _checked(answers: Mapping[str, Answer]) -> dict[str, Answer]:
    return {host: answer.checked(Preflight, typed.NEWER) for host, answer in answers.items()}


def _locks(answer: Answer) -> Mapping[str, str]:
    locks: Mapping[str, str] = answer.value.locks if answer.value else {}
    return locks
