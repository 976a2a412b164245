"""Driver branches: the file's rows, and what is said of them on a given day."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import branches, packages

ROWS = data_tables.read("driver_branches")
BRANCHES = branches.parse(ROWS)
TODAY = datetime.date(2026, 11, 27)


def said(version: str, today: datetime.date = TODAY, **where: Any) -> list[str]:
    branch = branches.of(version, BRANCHES)
    assert branch is not None
    given = {"source": "nvidia", "distribution": "ubuntu", "release": "24.04", **where}
    return list(branches.warnings(branch, today, **given))


@pytest.mark.parametrize(
    ("version", "today", "fragments"),
    [
        ("535.309.01", TODAY, ["branch 535, a long-term support branch, reached its end of life in June 2026"]),
        ("535.309.01", datetime.date(2026, 6, 30), []),
        ("535.309.01", datetime.date(2026, 7, 1), ["end of life in June 2026"]),
        ("550.127.05", TODAY, ["branch 550, a production branch, reached its end of life in June 2025"]),
        ("570.133.20", TODAY, ["end of life in February 2026"]),
        ("580.159.04", TODAY, []),
        ("590.48.01", TODAY, ["branch 590, a new-feature branch, was followed by 595"]),
        ("595.91.07", TODAY, []),
        ("595.91.07", datetime.date(2027, 4, 1), ["end of life in March 2027"]),
        ("610.57.04", TODAY, ["end of life in August 2026"]),
        ("615.71.09", TODAY, ["was followed by 620"]),
        ("620.10.01", TODAY, []),
    ],
)
def test_an_ended_branch_is_reported_with_its_month(version: str, today: datetime.date, fragments: list[str]) -> None:
    found = said(version, today)
    assert len(found) == len(fragments)
    for line, fragment in zip(found, fragments, strict=True):
        assert fragment in line
        assert "Set nvidia_driver_version to one of a supported branch" in line


@pytest.mark.parametrize(
    ("version", "flavor", "refused"),
    [
        ("620.10.01", "proprietary", True),
        ("620.10.01", "open", False),
        ("595.91.07", "proprietary", False),
        ("580.159.04", "open", False),
    ],
)
def test_modules_that_a_branch_has_no_longer_are_refused(version: str, flavor: str, refused: bool) -> None:
    branch = branches.of(version, BRANCHES)
    assert branch is not None
    reason = branches.refusal(branch, flavor)
    assert (reason is not None) is refused
    if reason:
        assert reason.startswith("branch 620 has open kernel modules alone, no proprietary ones")
        assert "set nvidia_driver_flavor: open, or nvidia_driver_version to one of an older branch" in reason


@pytest.mark.parametrize(
    ("version", "where", "warns"),
    [
        ("610.57.04", {"source": "ubuntu"}, True),
        ("595.71.05", {"source": "ubuntu", "release": "26.04"}, False),
        ("535.309.01", {"source": "debian", "distribution": "debian", "release": "12"}, False),
        ("535.309.01", {"source": "debian", "distribution": "debian", "release": "13"}, True),
        ("590.48.01", {"source": "ubuntu"}, False),  # not looked up
        ("595.71.05", {"source": "nvidia", "distribution": "debian", "release": "13"}, False),
    ],
)
def test_an_archive_that_does_not_carry_a_branch(version: str, where: dict[str, str], warns: bool) -> None:
    assert any("is not known to have branch" in line for line in said(version, **where)) is warns


@pytest.mark.parametrize(
    ("version", "where", "warns"),
    [
        ("570.133.20", {"distribution": "debian", "release": "13"}, True),
        ("570.133.20", {"distribution": "debian", "release": "12"}, False),
        ("580.159.04", {"release": "26.04"}, True),
        ("595.91.07", {"release": "26.04"}, False),
        ("580.159.04", {"source": "mirror", "release": "26.04"}, False),  # whatever it carries
    ],
)
def test_a_repository_of_nvidia_s_that_does_not_carry_a_branch(
    version: str, where: dict[str, str], warns: bool
) -> None:
    assert any(line.startswith("NVIDIA's repository for") for line in said(version, **where)) is warns


@pytest.mark.parametrize("version", ["545.23.08", "verify", None, "550"])
def test_what_is_not_listed_is_not_checked_by_a_row(version: str | None) -> None:
    assert branches.of(version, BRANCHES) is None


@pytest.mark.parametrize(
    ("version", "ended"),
    [
        ("545.23.08", True),
        ("525.147.05", True),
        ("470.256.02", True),
        ("550.90.07", False),
        ("630.10.01", False),
        ("verify", False),
    ],
)
def test_what_nvidia_does_not_list_has_ended(version: str, ended: bool) -> None:
    found = branches.unlisted(version, BRANCHES)
    assert (found is not None) is ended
    if found:
        assert found.startswith(f"branch {version[:3]} is none that NVIDIA supports")
    assert branches.unlisted(version, {}) is None


@pytest.mark.parametrize(
    ("version", "modules"), [("630.10.01", ("open",)), ("620.10.01", None), ("545.23.08", None), ("", None)]
)
def test_what_is_gone_does_not_come_back_with_a_newer_branch(version: str, modules: tuple[str, ...] | None) -> None:
    found = branches.newest(version, BRANCHES)
    assert (found and found.modules) == modules
    if found:
        assert (branches.refusal(found, "proprietary") or "").startswith("branch 630 has open kernel modules alone")


def test_rows_are_complete_and_in_order() -> None:
    keys = {
        "branch",
        "class",
        "end_of_life",
        "modules",
        "names",
        "fabric_names",
        "ubuntu",
        "debian",
        "cuda",
        "source",
        "confidence",
    }
    assert [row["branch"] for row in ROWS] == sorted(BRANCHES)
    for row in ROWS:
        assert set(row) - {"followed_by"} == keys, row["branch"]
        assert row["confidence"] in ("low", "medium", "high")
        assert row["source"].startswith("https://")
        assert row["end_of_life"] or (row["class"] == "new_feature" and row["followed_by"])
        assert row.get("followed_by") in (None, *BRANCHES)


@pytest.mark.parametrize("row", ROWS, ids=[row["branch"] for row in ROWS])
def test_the_package_names_of_the_code_are_those_of_the_row(row: dict[str, Any]) -> None:
    number = row["branch"]
    wanted = packages.package_set(
        f"{number}.57.04", source="nvidia", flavor="open", distribution="Ubuntu", fabric_manager=True
    )
    names = [requirement.names for requirement in wanted]
    suffix = {"suffixed": f"-{number}", "plain": ""}
    assert (f"libnvidia-compute{suffix[row['names']]}",) in names
    assert any(f"nvidia-fabricmanager{suffix[row['fabric_names']]}" in each for each in names)
