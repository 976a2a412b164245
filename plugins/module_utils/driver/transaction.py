"""From a declared driver to the exact packages that a host gets: what the module does, and what the check before it asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.commands import Run, run_command
from . import dpkg, install
from . import packages as driver_packages
from . import repository as apt_repository
from .packages import Flavor, PackageError, Source
from .repository_access import Access
from .state import DriverState

ARGUMENTS: Mapping[str, Mapping[str, object]] = {
    "source": {"type": "str", "choices": ["nvidia", "mirror", "ubuntu", "debian"], "default": "nvidia"},
    "flavor": {"type": "str", "choices": ["open", "proprietary"], "default": "open"},
    "fabric_manager": {"type": "str", "choices": ["auto", "present", "absent"], "default": "auto"},
    "prebuilt_modules": {"type": "bool", "default": False},
    "repository_url": {"type": "str"},
    "repository_suite": {"type": "str", "default": apt_repository.FLAT},
    "repository_components": {"type": "list", "elements": "str", "default": []},
}
"""Of the modules that install the driver or look before, as plugins/doc_fragments/fleet.py documents them."""


@dataclasses.dataclass(frozen=True)
class Declared:
    """What role nvidia_driver is asked for on one host; the names are those of its variables, less ``nvidia_driver_``."""

    version: str
    source: Source = "nvidia"
    flavor: Flavor = "open"
    fabric_manager: str = "auto"
    prebuilt_modules: bool = False
    repository_url: str | None = None
    keyring_url: str | None = None
    keyring_sha256: str | None = None
    keyring_fingerprint: str | None = None
    repository_suite: str = apt_repository.FLAT
    repository_components: Sequence[str] = ()
    access: Access = dataclasses.field(default_factory=Access)

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Declared:
        """From a module's parameters or the controller's request; what is None there is left at its default."""
        names = [field.name for field in dataclasses.fields(cls) if field.name != "access"]
        values = {name: given[name] for name in names if given.get(name) is not None}
        return cls(**{"version": "", **values, "access": Access.parse(given)})

    @property
    def repository(self) -> apt_repository.Repository | None:
        """Ours to describe to apt; None where there is none."""
        if not (self.has_repository and self.repository_url):
            return None
        return apt_repository.Repository(
            self.repository_url, self.repository_suite, tuple(map(str, self.repository_components))
        )

    @property
    def has_repository(self) -> bool:
        return self.source in ("nvidia", "mirror")


def requirements(
    declared: Declared, state: DriverState, distribution: str, kernels: Sequence[str]
) -> tuple[driver_packages.Requirement, ...]:
    """The packages that ``declared`` means on a host with this state and these bootable kernels.

    Raises:
        PackageError: no repository could satisfy it.
    """
    return driver_packages.package_set(
        declared.version,
        source=declared.source,
        flavor=declared.flavor,
        distribution=distribution,
        fabric_manager=driver_packages.needs_fabric_manager(declared.fabric_manager, state),
        nvlink5=bool(state["fabric"]["switch_managers"]),
        imex=driver_packages.needs_imex(declared.fabric_manager, state),
        prebuilt_for=kernels if declared.prebuilt_modules else (),
    )


def decide(
    declared: Declared,
    state: DriverState,
    offered: apt_repository.Offer,
    distribution: str,
    kernels: Sequence[str],
    *,
    interrupted: bool = False,
    leftover_pins: Sequence[str] = (),
) -> install.Plan:
    """What has to happen to the packages. Pure.

    Raises:
        PackageError: the repository does not offer it; where it offers it with the other kernel modules, that is said.
    """
    other: Flavor = "proprietary" if declared.flavor == "open" else "open"
    wanted = requirements(declared, state, distribution, kernels)
    try:
        instead = requirements(dataclasses.replace(declared, flavor=other), state, distribution, kernels)
    except PackageError:
        instead = ()  # this branch has none
    unwanted = _names(instead) - _names(wanted)
    # Ubuntu installs both flavours beside each other, with files of one name: depmod chooses between them.
    unwanted |= {name for name in state["packages"] if driver_packages.flavor_of_prebuilt(name) == other}
    try:
        return install.plan(declared.version, wanted, offered, state["packages"], interrupted=interrupted,
                            leftover_pins=leftover_pins, unwanted=unwanted)  # fmt: skip
    except PackageError as error:
        if not instead:
            raise
        try:
            driver_packages.select(instead, offered)
        except PackageError:
            raise error from None
        raise PackageError(
            f"driver {declared.version} is on offer with {other} kernel modules alone: set nvidia_driver_flavor: {other}, "
            "or another version"
        ) from error


def names(declared: Declared, state: DriverState, distribution: str, kernels: Sequence[str]) -> list[str]:
    """Every package name that ``decide`` may look up on offer, of both flavours."""
    flavors: tuple[Flavor, ...] = ("open", "proprietary")
    found: set[str] = {*state["packages"]}
    for one in (dataclasses.replace(declared, flavor=flavor) for flavor in flavors):
        try:
            found |= _names(requirements(one, state, distribution, kernels))
        except PackageError:
            continue
    return sorted(found)


def _names(requirements: Sequence[driver_packages.Requirement]) -> set[str]:
    return {name for each in requirements for name in each.names}


def plan(
    declared: Declared,
    state: DriverState,
    kernels: Sequence[str],
    *,
    root: Path = Path("/"),
    run: Run = run_command,
) -> install.Plan:
    """What has to happen to the packages of this host.

    Args:
        declared: the driver.
        state: what is installed.
        kernels: those that may boot next.
        root: the host's file system.
        run: the apt that is asked where no repository of our own is declared.

    Raises:
        PackageError: the repository does not offer it.
        UnreadableIndex: the repository cannot be read.
    """
    distribution = apt_repository.this_distribution(root / "etc/os-release")
    wanted = names(declared, state, distribution, kernels)
    if (repository := declared.repository) is not None:
        shared = [name for name in driver_packages.DIAGNOSTICS if name in wanted]
        archive = apt_repository.offered_by_apt(shared, run=run) if shared else {}
        offered = {**archive, **apt_repository.offered(repository, declared.access)}
    else:
        offered = apt_repository.offered_by_apt(wanted, run=run)
    return decide(declared, state, offered, distribution, kernels, interrupted=dpkg.interrupted(root),
                  leftover_pins=install.leftover_pins())  # fmt: skip
