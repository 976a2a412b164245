"""What is wrong with a host's packages before its driver is changed: typed problems from what was read. Pure."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..core.codes import Code
from ..core.stop import Stop
from . import repository_access
from .apt_output import AptAnswer, AptFault
from .apt_sources import Source
from .boot_kernels import Kernels
from .install import Plan
from .package_state import Left, Unfinished, is_driver_part
from .repository import Repository
from .repository_access import Access


class ProblemKind(Code):
    """What is wrong."""

    RECORD = "record"  # the driver change record cannot be read
    FLAVOR = "flavor"  # the kernel modules asked for do not run these cards
    LOCKED = "locked"
    UNFINISHED = "unfinished"  # dpkg left a package half-way
    INTERRUPTED = "interrupted"  # dpkg was stopped
    SOURCES = "sources"  # the host's apt cannot read its own sources
    DESCRIBED_TWICE = "described_twice"  # another description of the repository names another key
    KEYRING = "keyring"
    REPOSITORY = "repository"  # it cannot be read, or its signature does not hold
    UNMET = "unmet"  # dependencies are not satisfied before anything is done
    NOT_ON_OFFER = "not_on_offer"
    TRANSACTION = "transaction"  # apt refuses what would be installed
    OTHERS = "others"  # apt would remove or change packages that are not the driver's
    HEADERS = "headers"
    PREBUILT = "prebuilt"
    SECURE_BOOT = "secure_boot"


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: what, for programs.
        cause: what and which, for people; what to set stands in it where a setting is the remedy.
        fix: the command that repairs it on the host; empty where none does.
        warns: whether it is only said: the run repairs it itself.
    """

    kind: ProblemKind
    cause: str
    fix: str = ""
    warns: bool = False

    def stop(self, host: str) -> Stop:
        """Why a run on ``host`` stops, with the command that repairs it from the controller."""
        command = f"ansible {host} -b -m ansible.builtin.command -a {shlex.quote(self.fix)}" if self.fix else ""
        return Stop(self.cause, command, where=host)


@dataclasses.dataclass(frozen=True)
class Preflight:
    """What keeps a host from its driver: who holds which of apt's ``locks``, and what else is wrong."""

    locks: Mapping[str, str]
    problems: tuple[Problem, ...]


_LEFT = {
    Left.HALF_INSTALLED: "half-installed",
    Left.UNPACKED: "unpacked and not configured",
    Left.HALF_CONFIGURED: "half-configured",
    Left.TRIGGERS: "waiting for triggers to be run",
    Left.AUDIT: "named by dpkg --audit",
}


def unfinished_packages(found: Iterable[Unfinished], own_change: bool) -> list[Problem]:
    """What dpkg left half-way.

    Packages of the driver are replaced or repaired by the install. So is all that a change of ours which was stopped left
    (``own_change``): to run again is how that is finished. Anything else makes apt fail in the middle of ours.
    """
    return [_unfinished(one, repaired=one.ours or own_change) for one in found]


def _unfinished(one: Unfinished, repaired: bool) -> Problem:
    what = f"package {one.name}{f' {one.version}' if one.version else ''} is {_LEFT[one.left]}"
    command = _finish(one)
    if one.left is Left.AUDIT:  # apt installs all the same
        return Problem(ProblemKind.UNFINISHED, f"{what}: '{command}' repairs it", command, warns=True)
    if repaired:
        return Problem(ProblemKind.UNFINISHED, f"{what}: this run repairs it", command, warns=True)
    cause = (
        f"{what}, so an install of anything ends in failure. Finish it with '{command}'; if that fails too, it says why"
    )
    return Problem(ProblemKind.UNFINISHED, f"{cause}, and 'apt-get remove {one.name}' ends it", command)


def _finish(one: Unfinished) -> str:
    if one.left in (Left.HALF_INSTALLED, Left.AUDIT):
        return f"apt-get install -y --reinstall {one.name}"
    return "dpkg --configure -a" if one.left is Left.TRIGGERS else f"dpkg --configure {one.name}"


def interrupted(was: bool, own_change: bool) -> list[Problem]:
    """dpkg was stopped half-way; the install begins with its repair, and must where a change of ours was stopped."""
    if not was:
        return []
    cause = "dpkg was stopped half-way"
    if own_change:
        return [Problem(ProblemKind.INTERRUPTED, f"{cause}: this run repairs it", "dpkg --configure -a", warns=True)]
    return [Problem(ProblemKind.INTERRUPTED, f"{cause}, by no run of ours", "dpkg --configure -a")]


def described_twice(others: Sequence[Source], uri: str, keyring: str) -> list[Problem]:
    """Other descriptions of our repository that name another key: with both, apt reads no source at all."""
    problems = []
    for file in dict.fromkeys(source.file for source in others):
        named = next(source.signed_by for source in others if source.file == file)
        key = "a key inside the file" if "\n" in named else named or "no key"
        problems.append(
            Problem(
                ProblemKind.DESCRIBED_TWICE,
                f"{file} describes {uri} too, signed by {key}: beside Lockstep's own description (signed by {keyring}) "
                "every apt-get update of the host would fail. Set that file aside (apt reads no *.disabled)",
                f"mv {file} {file}.disabled",
            )
        )
    return problems


def access(given: Access, repository: Repository | None, components: Sequence[str]) -> list[Problem]:
    """What of the repository's address, layout and credentials cannot be meant."""
    if repository is None:
        return []
    wrong = repository_access.problems(given, repository.url)
    if not repository.flat and not components:
        wrong.append(
            f"nvidia_driver_repository_suite is {repository.suite}, so set nvidia_driver_repository_components"
        )
    if repository.flat and components:
        wrong.append("nvidia_driver_repository_components are for a suite that does not end with /")
    found = [Problem(ProblemKind.REPOSITORY, cause) for cause in wrong]
    if repository_access.in_the_clear(given, repository.url):
        cause = f"the password for {repository.url} passes the network in the clear: set an https:// address"
        found.append(Problem(ProblemKind.REPOSITORY, cause, warns=True))
    return found


def before(check: AptAnswer) -> list[Problem]:
    """What ``apt-get check`` says of the host as it is."""
    if check.ok:
        return []
    if check.fault in (AptFault.SOURCES, AptFault.SIGNED_BY):
        cause = f"apt cannot read the sources of the host: {check.reason}"
        return [Problem(ProblemKind.SOURCES, cause, "apt-get check")]
    if check.unmet or check.fault is AptFault.UNMET:
        cause = f"packages of the host lack what they depend on, before anything is installed: {check.reason}"
        return [Problem(ProblemKind.UNMET, cause, "apt-get install -y --fix-broken")]
    return [Problem(ProblemKind.UNMET, f"apt-get check fails: {check.reason}", "apt-get check")]


def repository(answer: AptAnswer, uri: str) -> list[Problem]:
    """Whether apt accepted our description of the repository and its signature."""
    if answer.ok:
        return []
    if answer.fault is AptFault.SIGNATURE:
        cause = f"the signature of {uri} does not hold with the key of nvidia_driver_keyring_url: {answer.reason}"
    else:
        cause = f"apt cannot read {uri}: {answer.reason}. Check nvidia_driver_repository_url"
    return [Problem(ProblemKind.REPOSITORY, cause)]


def transaction(answer: AptAnswer, work: Plan, version: str, held: Collection[str]) -> list[Problem]:
    """Whether apt would do exactly this transaction, and nothing to packages that are not the driver's."""
    if not answer.ok:
        cause = f"apt refuses to install driver {version}: {answer.reason}"
        return [Problem(ProblemKind.TRANSACTION, cause)]
    own = {*work.install, *work.remove, *work.purge}
    removed = sorted(name for name in answer.removes if _foreign(name, own))
    changed = sorted(one.name for one in answer.installs if one.old and one.name in held and _foreign(one.name, own))
    problems = []
    if removed:
        cause = f"to install driver {version}, apt would remove {', '.join(removed)}, which the driver is no part of"
        problems.append(Problem(ProblemKind.OTHERS, f"{cause}: remove them yourself, or choose another version"))
    if changed:
        are = "is" if len(changed) == 1 else "are"
        cause = f"to install driver {version}, apt would change {', '.join(changed)}, which {are} held"
        problems.append(
            Problem(
                ProblemKind.OTHERS,
                f"{cause}: unhold, or choose another version",
                f"apt-mark unhold {' '.join(changed)}",
            )
        )
    return problems


def modules_for_kernels(kernels: Kernels, brought: Collection[str], built: Collection[str] = ()) -> list[Problem]:
    """Kernels for which DKMS could not build.

    Args:
        kernels: those of the host.
        brought: packages that the transaction installs, such as ``linux-headers-…`` and ``dkms``.
        built: kernels whose modules are there and stay.
    """
    if not (kernels.dkms or "dkms" in brought):
        return []
    problems = []
    for kernel in kernels.without_headers():
        headers = f"linux-headers-{kernel}"
        if headers in brought or kernel in built:
            continue
        which = "the running kernel" if kernel == kernels.running else "a kernel that the next boot may take"
        cause = f"DKMS cannot build for {kernel}, {which}: its headers are missing"
        problems.append(Problem(ProblemKind.HEADERS, cause, f"apt-get install -y {headers}"))
    return problems


def prebuilt_modules(made_for: Mapping[str, str | None], version: str) -> list[Problem]:
    """Packages of prebuilt modules that were made for another driver; ``made_for`` has None where that is not said."""
    return [
        Problem(
            ProblemKind.PREBUILT,
            f"{name} holds modules of driver {made}, not of {version}: set nvidia_driver_version: {made}, or take DKMS "
            "(nvidia_driver_prebuilt_modules: false)",
        )
        for name, made in sorted(made_for.items())
        if made is not None and made != version
    ]


def _foreign(name: str, own: Collection[str]) -> bool:
    return name.partition(":")[0] not in own and not is_driver_part(name)
