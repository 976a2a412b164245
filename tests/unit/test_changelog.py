"""One version everywhere, fragments that antsibull-changelog can read, and a CHANGELOG that is made of them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.machine import PATIENCE

ROOT = Path(__file__).parents[2]
NOTES = ROOT / "changelogs"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


SECTIONS = {name for name, _title in read(NOTES / "config.yaml")["sections"]} | {"release_summary", "trivial"}


def complaint(fragment: Any) -> str | None:
    """Why the release would not take this fragment; None where it does."""
    if not isinstance(fragment, dict) or not fragment:
        return "holds no section"
    if unknown := sorted({*fragment} - SECTIONS):
        return f"{', '.join(unknown)}: no section; there are {', '.join(sorted(SECTIONS))}"
    for name, lines in fragment.items():
        if name == "release_summary":
            continue
        if not isinstance(lines, list) or not all(isinstance(line, str) and line.strip() for line in lines):
            return f"{name}: is no list of texts; a colon and a blank within a text want quotation marks"
    return None


def test_fragments_can_be_read() -> None:
    paths = [path for path in (NOTES / "fragments").iterdir() if path.name != ".gitkeep"]
    assert {path.name: said for path in paths if (said := complaint(read(path)))} == {}
    assert not [path.name for path in paths if path.suffix not in (".yml", ".yaml")], (
        "antsibull-changelog would not see it"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("minor_changes:\n  - plan - says more.\n", None),
        ("minor_changes:\n  - plan: says more.\n", "no list of texts"),
        ("minor_changes: plan says more.\n", "no list of texts"),
        ("features:\n  - plan says more.\n", "no section"),
        ("", "holds no section"),
    ],
)
def test_fragment_that_a_release_would_not_take_is_reported(text: str, reason: str | None) -> None:
    said = complaint(yaml.safe_load(text))
    assert said is None if reason is None else said and reason in said


def test_one_version_everywhere() -> None:
    version = read(ROOT / "galaxy.yml")["version"]
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == version
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    assert [each["version"] for each in locked if each["name"] == "lockstep"] == [version]
    assert version in read(NOTES / "changelog.yaml")["releases"], f"{version} has no notes: antsibull-changelog release"


@pytest.mark.skipif(
    not importlib.util.find_spec("antsibull_changelog"), reason="this environment is older than uv.lock"
)
def test_changelog_is_made_of_its_notes(tmp_path: Path) -> None:
    shutil.copytree(NOTES, tmp_path / "changelogs")
    shutil.copyfile(ROOT / "galaxy.yml", tmp_path / "galaxy.yml")
    for command in ("lint", "generate"):
        program = [sys.executable, "-m", "antsibull_changelog", command]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "CHANGELOG.rst").read_text() == (ROOT / "CHANGELOG.rst").read_text(), (
        "antsibull-changelog generate"
    )
