"""Bring the packages of one exact driver onto a host: fetched beforehand, installed in one transaction, pinned and held.

``plan`` decides and is pure; ``fetch`` and ``install`` act on its result through apt, so that a dry run and a real one
cannot differ. Whatever was interrupted before is repaired first, apt's locks are waited for, and every command has a
deadline.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from ..core.commands import run_command
from . import apt_lock, apt_sources, dpkg, package_state
from . import repository as apt_repository
from .package_command import StepFailed as StepFailed
from .package_command import package_command as _command
from .packages import FAMILY, PINNING, Requirement, select, takes_part
from .versions import upstream

PREFERENCES = Path("/etc/apt/preferences.d/lockstep-nvidia-driver.pref")
APT_OPTIONS = (
    "-q", "-y", "--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages",
    "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold", "-o", "DPkg::Lock::Timeout=60",
)  # fmt: skip
_DPKG = ("dpkg", "--force-hold", "--force-confdef", "--force-confold")
PINS = ("nvidia-driver-pinning", "nvidia-driver-pinning.pref")
"""Names under which NVIDIA's pinning packages put their preferences."""
EXACT, KIN = 1002, 1001
"""Pin priorities: above 1000, so that apt goes back to them too; of two revisions that fit, the named one."""
SERVICES = ("nvidia-persistenced.service", "nvidia-fabricmanager.service")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What has to happen to the packages of a host.

    Attributes:
        desired: every package that will be there, with its exact apt version.
        pins: the part of it that preferences name one by one, the same on every run; dependencies are pinned by family.
        install: those of ``desired`` that are not there yet, or not in that version, or broken.
        remove: driver packages of other versions that would stay behind.
        hold: packages that are there and not held.
        broken: packages that dpkg left half-way.
        purge: pinning packages of other versions; they go first, with the apt preferences that outlive them.
        repair: whether dpkg has to be repaired first.
    """

    desired: Mapping[str, str]
    pins: Mapping[str, str]
    install: Mapping[str, str]
    remove: tuple[str, ...]
    hold: tuple[str, ...]
    broken: tuple[str, ...]
    purge: tuple[str, ...]
    repair: bool

    @property
    def needed(self) -> bool:
        return bool(self.install or self.remove or self.hold or self.purge or self.repair)


def plan(version: str, requirements: Sequence[Requirement], offered: apt_repository.Offer, packages: dpkg.Packages, *,
         interrupted: bool, leftover_pins: Sequence[str] = (), unwanted: Collection[str] = ()) -> Plan:  # fmt: skip
    """Decide from what is desired, what the repository offers and what is installed.

    Packages of the driver that came along as dependencies are carried to that version where the repository has
    them in it, and removed where it has not. ``leftover_pins`` are pinning packages of which only the preferences remain;
    ``unwanted`` are the kernel modules of the other flavour, which go whatever their version is.

    Raises:
        PackageError: the repository does not offer the driver.
    """
    pins = select(requirements, offered)
    desired = dict(pins)
    remove: list[str] = []
    purge = [name for name in leftover_pins if name not in desired]
    for name, package in packages.items():
        if name in unwanted and name not in desired:
            remove.append(name)
            continue
        if name in desired or not takes_part(name, package["version"]) or upstream(package["version"]) == version:
            continue
        carried = next((offer for offer in offered.get(name, ()) if upstream(offer) == version), None)
        if carried:
            desired[name] = carried
        else:
            (purge if name.startswith(PINNING) else remove).append(name)
    gone = {*remove, *purge}
    broken = tuple(sorted(name for name, package in packages.items() if package["broken"] and name not in gone))
    install = {name: exact for name, exact in sorted(desired.items())
               if name in broken or name not in packages or packages[name]["version"] != exact}  # fmt: skip
    kept = [name for name, package in packages.items() if name not in gone and not package["hold"]]
    return Plan(dict(sorted(desired.items())), pins, install, tuple(sorted(remove)),
                tuple(sorted({*kept, *(name for name in desired if name not in packages)})), broken,
                tuple(sorted(purge)), interrupted or bool(broken))  # fmt: skip


def preferences(version: str, exact: Mapping[str, str]) -> str:
    """The apt preferences that pin every driver package: the named ones exactly, their kin to the same driver version.

    Where all named ones are of one revision, their kin are of that one first: an archive may have another one too, as
    backports do, and strict dependencies bind them together.
    """
    lines = [
        f"# Written by Lockstep (role nvidia_driver): the driver of this host is {version}, and apt leaves it there."
    ]
    for name, apt_version in sorted(exact.items()):
        lines += ["", f"Package: {name}", f"Pin: version {apt_version}", f"Pin-Priority: {EXACT}"]
    revisions = {one for name, one in exact.items() if upstream(one) == version and not dpkg.has_own_version(name)}
    family = [(next(iter(revisions)), EXACT)] if len(revisions) == 1 else []
    for pinned, priority in (*family, (f"{version}-*", KIN)):
        lines += ["", f"Package: {' '.join(FAMILY)}", f"Pin: version {pinned}", f"Pin-Priority: {priority}"]
    return "\n".join([*lines, ""])


def fetch(work: Plan, version: str, *, deadline: float, lock_deadline: float) -> bool:
    """Download what the plan will install, and nothing else. Returns whether anything had to be fetched."""
    if not work.install:
        return False
    with _preferences(version, work) as options:
        arguments = [*options, "--download-only", *transaction(work)]
        if not missing_files(_apt(["--print-uris", *arguments], deadline, lock_deadline, "apt-get --print-uris")):
            return False
        _apt(arguments, deadline, lock_deadline, f"downloading driver {version}")
    return True


def missing_files(uris: str) -> list[str]:
    """The files that apt would have to download, from ``apt-get --print-uris``."""
    return [line.split()[1] for line in uris.splitlines() if line.startswith("'")]


def install(
    work: Plan, version: str, *, deadline: float, lock_deadline: float, tolerate_unrelated: bool = False
) -> tuple[str, ...]:
    """Repair, install in one transaction, pin and hold. Safe to repeat wherever it was stopped.

    What is installed at the end is held whatever became of the rest. Where apt fails for a package that is no part of
    the driver, this fails too, and names it; with ``tolerate_unrelated`` only the driver's own packages count, and
    what is wrong with others is returned, as warnings.

    Raises:
        StepFailed: the packages are not as planned, or others are unfinished and that is not tolerated.
    """
    if work.repair:
        _before_apt(work, deadline, lock_deadline)
    pin(preferences(version, work.pins))
    with _held_whatever_happens(deadline, lock_deadline):
        if work.purge:
            apt_lock.wait(lock_deadline)
            _command(["dpkg", "--force-hold", "--purge", *work.purge], deadline, "removing the pin of another driver")
        warnings = _transaction(work, version, deadline, lock_deadline, tolerate_unrelated)
    for unit in SERVICES:
        if run_command(["systemctl", "cat", unit], deadline).ok:
            _command(["systemctl", "enable", "-q", unit], deadline, f"systemctl enable {unit}")
    return warnings


def _transaction(
    work: Plan, version: str, deadline: float, lock_deadline: float, tolerate_unrelated: bool
) -> tuple[str, ...]:
    """Install and remove as planned. apt's exit status alone does not show whether that was done: it fails for others too."""
    if not (work.install or work.remove):
        return ()
    try:
        _apt(transaction(work), deadline, lock_deadline, f"installing driver {version}")
    except StepFailed as failure:
        others = package_state.others(run_command, deadline)
        if not others:
            raise
        cause, remedy = package_state.cause(others), package_state.remedy(others)
        if not tolerate_unrelated:
            raise StepFailed(f"{_sentence(failure)} {cause}", failure.log, remedy) from failure
        left = unmet(work, dpkg.installed(run_command, deadline))
        if left:
            try:
                _without_apt(work, version, deadline, lock_deadline)
            except StepFailed as second:
                log = f"{failure.log}\n{second.log}"
                raise StepFailed(f"{failure}; and without apt, {_sentence(second)} {cause}", log, remedy) from second
            left = unmet(work, dpkg.installed(run_command, deadline))
        if left:
            raise StepFailed(f"{failure}: {'; '.join(left)}. {cause}", failure.log, remedy) from failure
        return (f"{cause}. Driver {version} is installed all the same. Next, there: {remedy}",)
    return ()


def _sentence(failure: StepFailed) -> str:
    return f"{str(failure).rstrip('.')}."


def unmet(work: Plan, packages: dpkg.Packages) -> tuple[str, ...]:
    """What of the plan is not so, by the packages as they are now."""
    wrong = []
    for name, exact in work.desired.items():
        package = packages.get(name)
        if package is None or package["version"] != exact:
            wrong.append(f"{name} is {package['version'] if package else 'absent'}, not {exact}")
        elif package["broken"]:
            wrong.append(f"{name} {exact} was left half-way by dpkg")
    gone = (*work.remove, *work.purge)
    return (*wrong, *(f"{name} is still there" for name in gone if name in packages))


def _without_apt(work: Plan, version: str, deadline: float, lock_deadline: float) -> None:
    """Have dpkg do it with these packages alone: apt refuses any work while another package's dependencies are unmet."""
    with tempfile.TemporaryDirectory(prefix="lockstep-") as name:
        os.chmod(name, 0o755)  # apt fetches as the user _apt
        if work.install:
            _apt(["download", *_named(work)], deadline, lock_deadline, f"downloading driver {version}", folder=name)
        apt_lock.wait(lock_deadline)
        if work.remove:
            remove = ["dpkg", "--force-hold", "--force-depends", "--remove", *work.remove]
            _command(remove, deadline, "removing packages of another driver")
        files = sorted(str(path) for path in Path(name).glob("*.deb"))
        if files:
            _command([*_DPKG, "--unpack", *files], deadline, f"unpacking driver {version}")
            _command([*_DPKG, "--configure", *work.install], deadline, f"configuring driver {version}")


@contextlib.contextmanager
def _held_whatever_happens(deadline: float, lock_deadline: float) -> Iterator[None]:
    """apt drops the hold of what it changes: hold what is installed at the end, also where something fails before."""
    try:
        yield
    except BaseException as failure:
        try:
            hold(deadline, lock_deadline)
        except (StepFailed, apt_lock.Locked) as second:
            if isinstance(failure, StepFailed):
                raise StepFailed(f"{failure}; nor can it be held: {second}", failure.log, failure.next) from failure
        raise
    hold(deadline, lock_deadline)


def keep(version: str, text: str | None, *, deadline: float, lock_deadline: float) -> bool:
    """Pin and hold what is installed, and install nothing. Returns whether anything was changed.

    Args:
        version: the driver that is installed.
        text: the preferences that are to pin it; None pins it by what is installed.
    """
    packages = dpkg.installed(run_command, deadline)
    if text is None:
        text = preferences(version, {name: package["version"] for name, package in packages.items()
                                     if takes_part(name, package["version"])})  # fmt: skip
    pinned = current_preferences() == text
    if not pinned:
        pin(text)
    return bool(hold(deadline, lock_deadline)) or not pinned


def current_preferences() -> str | None:
    """The preferences that pin the driver now; None where nothing does."""
    return PREFERENCES.read_text(encoding="utf-8") if PREFERENCES.exists() else None


def pin(text: str) -> None:
    """Write the preferences that pin the driver."""
    PREFERENCES.write_text(text, encoding="utf-8")
    PREFERENCES.chmod(0o644)


def hold(deadline: float = 60.0, lock_deadline: float = 60.0) -> list[str]:
    """Hold every driver package that is installed. Returns those that were not held.

    By dpkg itself: apt-mark looks at what dpkg has written down, finds there a hold that dpkg's journal has dropped where
    it was killed, and leaves it at that.
    """
    not_held = _not_held(deadline)
    if not_held:
        apt_lock.wait(lock_deadline)
        selections = "".join(f"{name}\thold\n" for name in not_held)
        _command(["dpkg", "--set-selections"], deadline, "holding driver packages", given=selections)
        if left := _not_held(deadline):
            raise StepFailed(f"dpkg --set-selections did not hold {', '.join(left)}")
    return not_held


def _not_held(deadline: float) -> list[str]:
    return sorted(name for name, package in dpkg.installed(run_command, deadline).items() if not package["hold"])


def _before_apt(work: Plan, deadline: float, lock_deadline: float) -> None:
    """What apt asks for before it does anything, where dpkg was stopped.

    Packages of the driver that are half-way are installed or replaced by the transaction, which configures them: to do that
    here too would build a module twice that fails to build, minutes each. Then dpkg only writes down its journal, which apt
    insists on.
    """
    if not work.broken:
        repair(deadline, lock_deadline)
    else:
        apt_lock.wait(lock_deadline)
        _command(["dpkg", "--set-selections"], deadline, "dpkg finishes its journal")


def repair(deadline: float, lock_deadline: float) -> None:
    """Finish what an interrupted dpkg left. A package that cannot be configured is left to the install that follows."""
    apt_lock.wait(lock_deadline)
    with contextlib.suppress(StepFailed):
        _command(["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"], deadline, "dpkg --configure -a")


def leftover_pins(deadline: float = 30.0) -> list[str]:
    """Pinning packages that are gone but for the preferences that they brought."""
    return dpkg.purgeable(f"{PINNING}*", run_command, deadline)


def known_to_apt(work: Plan) -> bool:
    """Whether apt's own lists have every package that the plan installs, in that version."""
    known = apt_repository.offered_by_apt(list(work.install))
    return all(exact in known.get(name, ()) for name, exact in work.install.items())


def update(source: Path, *, deadline: float, lock_deadline: float) -> None:
    """Read the lists of the one repository that ``source`` describes; the others are left as they are."""
    arguments = [*apt_sources.alone(source), *apt_sources.UPDATE]
    try:
        _apt(arguments, deadline, lock_deadline, f"apt-get update of {source}")
    except StepFailed as failure:
        raise StepFailed(f"{failure}. Check nvidia_driver_repository_url and the keyring", failure.log) from failure


def transaction(work: Plan) -> list[str]:
    """The one transaction, as arguments of ``apt-get``: every package with its version, and those that go."""
    return ["install", *_named(work), *(f"{name}-" for name in work.remove)]


def _named(work: Plan) -> list[str]:
    return [f"{name}={exact}" for name, exact in work.install.items()]


@contextlib.contextmanager
def _preferences(version: str, work: Plan) -> Iterator[list[str]]:
    """Options that make apt see the preferences of ``version``, and not those of a pin that the install will purge."""
    with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
        os.chmod(folder, 0o755)  # apt reads it as the user _apt
        own = Path(folder, "driver.pref")
        own.write_text(preferences(version, work.pins), encoding="utf-8")
        parts = Path(folder, "parts")
        parts.mkdir()
        ignored = {"driver.pref", PREFERENCES.name, *(name for name in PINS if work.purge)}
        for path in PREFERENCES.parent.glob("*"):
            if path.name not in ignored:
                (parts / path.name).symlink_to(path)
        yield ["-o", f"Dir::Etc::Preferences={own}", "-o", f"Dir::Etc::PreferencesParts={parts}"]


def _apt(arguments: Sequence[str], deadline: float, lock_deadline: float, what: str, folder: str | None = None) -> str:
    apt_lock.wait(lock_deadline)
    return _command(["apt-get", *APT_OPTIONS, *arguments], deadline, what, folder)
