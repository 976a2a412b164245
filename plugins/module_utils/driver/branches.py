"""NVIDIA's driver branches: how long one is supported, which kernel modules it has, who carries it. Pure.

The rows are data/driver_branches.yml. A branch that has no row is not checked.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

from ..core.codes import Code
from .versions import is_driver_version


class BranchClass(Code):
    """How NVIDIA supports a branch."""

    PRODUCTION = "production"
    NEW_FEATURE = "new_feature"  # short-lived
    LONG_TERM = "long_term"


LISTED = "https://docs.nvidia.com/datacenter/tesla/drivers/supported-drivers-and-cuda-toolkit-versions.html"
"""Its note under the table: all previous branches that are not in it are end of life."""
_CALLED = {
    BranchClass.PRODUCTION: "production branch",
    BranchClass.NEW_FEATURE: "new-feature branch",
    BranchClass.LONG_TERM: "long-term support branch",
}


_Named = TypedDict(
    "_Named",
    {
        "branch": int,
        "class": str,
        "end_of_life": "str | None",
        "modules": Sequence[str],
        "ubuntu": "Sequence[str] | None",
        "debian": "Sequence[str] | None",
        "cuda": Sequence[str],
        "source": str,
    },
)


class Row(_Named, total=False):
    """One row of data/driver_branches.yml, as far as it is read; the file says what its keys mean."""

    followed_by: int


@dataclasses.dataclass(frozen=True)
class Branch:
    """One row of data/driver_branches.yml.

    Attributes:
        ends: the first day without support; None where none is given.
        followed_by: of a new-feature branch, the one that replaced it.
        modules: flavours of kernel modules that exist.
        ubuntu, debian: releases whose own archive carries it; None where that is not known.
        cuda: NVIDIA's repositories that carry it, such as ``ubuntu2404``.
    """

    number: int
    kind: BranchClass
    ends: datetime.date | None
    followed_by: int | None
    modules: tuple[str, ...]
    ubuntu: tuple[str, ...] | None
    debian: tuple[str, ...] | None
    cuda: tuple[str, ...]
    source: str

    @classmethod
    def parse(cls, row: Row) -> Branch:
        """One row.

        Raises:
            KeyError, ValueError: it lacks a key, or a value cannot be meant.
        """
        return cls(
            number=int(row["branch"]),
            kind=BranchClass(row["class"]),
            ends=_after(str(row["end_of_life"])) if row["end_of_life"] else None,
            followed_by=row.get("followed_by"),
            modules=tuple(row["modules"]),
            ubuntu=None if row["ubuntu"] is None else tuple(row["ubuntu"]),
            debian=None if row["debian"] is None else tuple(row["debian"]),
            cuda=tuple(row["cuda"]),
            source=str(row["source"]),
        )


def parse(rows: Sequence[Row]) -> dict[int, Branch]:
    """The branches by their number."""
    return {branch.number: branch for branch in map(Branch.parse, rows)}


def of(version: object, branches: Mapping[int, Branch]) -> Branch | None:
    """The branch of a driver version; None where it is no such version, or not listed."""
    text = str(version)
    return branches.get(int(text.split(".")[0])) if is_driver_version(text) else None


def newest(version: object, branches: Mapping[int, Branch]) -> Branch | None:
    """For a branch that is newer than all listed ones the last of them, under its number: what is gone does not come back."""
    text, last = str(version), max(branches, default=0)
    number = int(text.split(".")[0]) if is_driver_version(text) else 0
    return dataclasses.replace(branches[last], number=number) if number > last > 0 else None


def unlisted(version: object, branches: Mapping[int, Branch]) -> str | None:
    """What to know of a branch without a row: those that NVIDIA does not list have ended. None where it is listed, or newer."""
    text = str(version)
    number = int(text.split(".")[0]) if is_driver_version(text) else 0
    if not number or number in branches or number > max(branches, default=0):
        return None
    return (
        f"branch {number} is none that NVIDIA supports: it gets no fixes any more, of security neither ({LISTED}). Set "
        "nvidia_driver_version to one of a supported branch"
    )


def refusal(branch: Branch, flavor: str) -> str | None:
    """Why no driver of this branch can have these kernel modules; None where one can."""
    if flavor in branch.modules:
        return None
    there = " and ".join(branch.modules)
    return (
        f"branch {branch.number} has {there} kernel modules alone, no {flavor} ones ({branch.source}): set "
        f"nvidia_driver_flavor: {branch.modules[0]}, or nvidia_driver_version to one of an older branch"
    )


def warnings(
    branch: Branch, today: datetime.date, *, source: str, distribution: str | None, release: str | None
) -> Iterator[str]:
    """What to know of a branch before a driver of it is installed.

    Args:
        source: nvidia_driver_source.
        distribution, release: ``ubuntu`` and ``24.04``, as os-release has them.
    """
    name = f"branch {branch.number}, a {_CALLED[branch.kind]},"
    if branch.ends is not None and today >= branch.ends:
        yield (
            f"{name} reached its end of life in {_last_month(branch.ends)}: it gets no fixes any more, of security neither "
            f"({branch.source}). Set nvidia_driver_version to one of a supported branch"
        )
    elif branch.ends is None and branch.followed_by:
        yield (
            f"{name} was followed by {branch.followed_by} and gets no fixes any more ({branch.source}). Set "
            "nvidia_driver_version to one of a supported branch"
        )
    carried = {"ubuntu": branch.ubuntu, "debian": branch.debian}.get(source)
    if carried is not None and distribution == source and release not in carried:
        where = f"; it is in {', '.join(carried)}" if carried else ""
        yield (
            f"the archive of {source.capitalize()} {release} is not known to have branch {branch.number}{where}. Set "
            "nvidia_driver_source: nvidia if its packages cannot be found"
        )
    repository = f"{distribution}{release}".replace(".", "")
    if source == "nvidia" and distribution and release and repository not in branch.cuda:
        yield (
            f"NVIDIA's repository for {repository} is not known to have branch {branch.number}; those for "
            f"{', '.join(branch.cuda)} are. Set nvidia_driver_version to one of another branch if its packages cannot be found"
        )


def _after(month: str) -> datetime.date:
    """``2026-06`` → the first of July 2026."""
    year, number = map(int, month.split("-"))
    return datetime.date(year + number // 12, number % 12 + 1, 1)


def _last_month(ends: datetime.date) -> str:
    last = ends - datetime.timedelta(days=1)
    return f"{last:%B %Y}"
