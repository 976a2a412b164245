"""What GitHub would run, held against actionlint and against what is here to be run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.supply.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def checked(actionlint: str, *files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([actionlint, "-no-color", *files], cwd=ROOT, text=True, capture_output=True, check=False)


def test_actionlint_finds_nothing(actionlint: str) -> None:
    assert len(WORKFLOWS) >= 2
    done = checked(actionlint, *WORKFLOWS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("runs-on:", "run-on:"), ("${{ matrix.suite }}", "${{ matrix.sweet }}")],
    ids=["a key", "an expression"],
)
def test_actionlint_finds_what_is_wrong(actionlint: str, right: str, wrong: str, tmp_path: Path) -> None:
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    assert right in text
    (tmp_path / "ci.yml").write_text(text.replace(right, wrong))
    assert checked(actionlint, tmp_path / "ci.yml").returncode == 1


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_target_and_scenario_is_there(workflow: Path) -> None:
    text = workflow.read_text()
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake (?:-o env )?([a-z][a-z0-9-]*)", text))
    assert named
    assert named <= targets
    for scenarios in re.findall(r"scenario: \[([^]]+)\]", text):
        assert all((ROOT / "molecule" / name.strip() / "molecule.yml").is_file() for name in scenarios.split(","))
