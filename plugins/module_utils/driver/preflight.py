"""Is a host ready for the packages of a driver? Read-only, in one call: the plan asks, and the role before it downloads.

Everything that apt would write goes to a throw-away root (``apt_root``). While somebody holds a lock of apt nothing is
said of packages, whose state is just being changed: then the holders are named, and the caller asks again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core import records
from ..core.codes import as_json
from ..core.commands import Run, run_command
from . import (
    apt_lock,
    apt_root,
    apt_sources,
    boot_kernels,
    change_record,
    dpkg,
    gpu_support,
    keyring,
    package_problems,
    package_state,
)
from . import install as driver_install
from . import repository as apt_repository
from . import state as driver_state
from . import transaction as driver_transaction
from .package_problems import Preflight, Problem, ProblemKind
from .packages import PackageError, branch, refused_system
from .transaction import Declared
from .versions import find_driver_version

KEYRINGS = "/etc/apt/keyrings/lockstep-nvidia"
DEADLINE = 60.0


def check(request: Mapping[str, Any]) -> dict[str, Any]:
    """The ``Preflight``, as JSON, of the driver that ``request`` declares (the fields of ``transaction.Declared``)."""
    held = locks()
    found = problems(Declared.parse(request), busy=bool(held))
    answer: dict[str, Any] = as_json(Preflight(held or locks(), tuple(found)))
    return answer


def locks(root: Path = Path("/")) -> dict[str, str]:
    """Who holds apt's and dpkg's locks now, by lock file."""
    return {name: apt_lock.describe(pid) for name, pid in sorted(apt_lock.holders(root).items())}


def problems(
    declared: Declared, *, busy: bool = False, root: Path = Path("/"), run: Run = run_command
) -> list[Problem]:
    """All that is wrong; of packages not while apt is in use (``busy``)."""
    if declared.source == "verify":
        return []
    unsupported = refused_system(apt_repository.this_distribution(root / "etc/os-release"))
    if unsupported:
        return [Problem(ProblemKind.NOT_ON_OFFER, unsupported)]
    try:
        number = branch(declared.version)
    except PackageError as error:
        return [Problem(ProblemKind.NOT_ON_OFFER, str(error))]
    unfit = package_problems.access(declared.access, declared.repository, declared.repository_components)
    if any(not problem.warns for problem in unfit):
        return unfit
    devices = gpu_support.cards(root).values()
    found = [*unfit]
    found += [Problem(ProblemKind.FLAVOR, line) for line in gpu_support.refusals(devices, number, declared.flavor)]
    twice = sources(declared, root=root)
    if busy:
        return [*found, *twice]
    return [*found, *twice, *_packages(declared, root, run, described_twice=bool(twice))]


def sources(declared: Declared, *, root: Path = Path("/")) -> list[Problem]:
    """Descriptions of the repository that would make apt fail beside ours."""
    if (own := declared.repository) is None:
        return []
    path = keyring_path(declared)
    others = apt_sources.contradicting(apt_sources.described(root), own.url, path, own.suite)
    return package_problems.described_twice(others, own.url, path)


def keyring_path(declared: Declared) -> str:
    """Where the role puts the repository's key: apt tells armoured keys from binary ones by the name."""
    return f"{KEYRINGS}.{'gpg' if str(declared.keyring_url).endswith('.gpg') else 'asc'}"


def _packages(declared: Declared, root: Path, run: Run, *, described_twice: bool) -> list[Problem]:
    try:
        open_change = change_record.parse(records.read(records.DRIVER))["change"] is not None
    except records.RecordError as error:
        return [
            Problem(ProblemKind.RECORD, f"{error}: which driver to go back to is not known", f"less {records.DRIVER}")
        ]
    left, stopped = package_state.unfinished(run), dpkg.interrupted(root)
    # A change stays open until it is accepted; where it was stopped in the middle, packages of the driver show it.
    own_change = open_change and (stopped or any(one.ours for one in left))
    found = package_problems.unfinished_packages(left, own_change)
    found += package_problems.interrupted(stopped, own_change)
    with apt_root.throw_away(root=root, command=run, ignore=[driver_install.PREFERENCES.name]) as apt:
        if not (own_change or found):
            found += package_problems.before(apt.check())
        if described_twice:
            return found  # apt reads nothing beside both descriptions
        added = _add(declared, apt) if declared.has_repository else []
        return [*found, *added, *(() if added else _transaction(declared, apt, root, run))]


def _add(declared: Declared, apt: apt_root.AptRoot) -> list[Problem]:
    """Describe the repository in the throw-away root; what is wrong with it or its key."""
    if (missing := keyring.missing(declared)) or (own := declared.repository) is None:
        return missing
    key, wrong = keyring.fetch(declared)
    if wrong:
        return wrong
    path = keyring_path(declared)
    source = apt_root.OwnSource(own, key, path.endswith(".asc"), path, declared.access)
    return package_problems.repository(apt.add(source), own.url)


def _transaction(declared: Declared, apt: apt_root.AptRoot, root: Path, run: Run) -> list[Problem]:
    """Simulate the very transaction, and look at what it brings for every kernel that may boot next."""
    state = driver_state.driver_state(also=(), root=root, run=run)
    kernels = boot_kernels.read(root)
    try:
        work = driver_transaction.plan(declared, state, kernels.bootable, root=root, run=apt.run)
    except (PackageError, apt_repository.UnreadableIndex) as error:
        return [Problem(ProblemKind.NOT_ON_OFFER, str(error))]
    if not (work.install or work.remove):
        return [] if declared.prebuilt_modules else package_problems.modules_for_kernels(kernels, (), kernels.built)
    pins = driver_install.PINS if work.purge else ()
    apt.prefer(driver_install.PREFERENCES.name, driver_install.preferences(declared.version, work.pins), pins)
    gone = [f"{name}-" for name in work.purge if name in state["packages"]]
    answer = apt.apt_get([*driver_install.APT_OPTIONS, "-s", *driver_install.transaction(work), *gone], DEADLINE)
    held = apt.run(["apt-mark", "showhold"], DEADLINE).stdout.split()
    found = package_problems.transaction(answer, work, declared.version, held)
    if declared.prebuilt_modules:
        return [*found, *package_problems.prebuilt_modules(_made_for(work, apt), declared.version)]
    found += package_problems.modules_for_kernels(kernels, {one.name for one in answer.installs})
    refused = boot_kernels.unsigned_modules_refused(root, run)
    return [*found, *([Problem(ProblemKind.SECURE_BOOT, refused)] if refused else [])]


def _made_for(work: driver_install.Plan, apt: apt_root.AptRoot) -> dict[str, str | None]:
    """The driver that each package of prebuilt modules was made for."""
    return {
        f"{name} {exact}": made_for(apt.run(["apt-cache", "show", f"{name}={exact}"], DEADLINE).stdout)
        for name, exact in work.desired.items()
        if name.startswith("linux-modules-nvidia-")
    }


def made_for(text: str) -> str | None:
    """The driver of a package of prebuilt modules, from its dependency on that driver's common files; None if it has none."""
    match = re.search(r"nvidia-kernel-common-[\w-]+ \(>= ([^)]+)\)", text)
    return find_driver_version(match.group(1)) if match else None
