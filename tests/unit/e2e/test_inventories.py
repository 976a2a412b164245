"""The testbed's inventories that tests and benchmarks name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = [*(ROOT / "tests/e2e").glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
NAMED = [
    (path.name, name)
    for path in sorted(FILES)
    for name in re.findall(r'testbed_four\("(\w+)"\)|inventories/testbed/(\w+)', path.read_text(encoding="utf-8"))
]


def test_some_are_named() -> None:
    assert len(NAMED) >= 5


@pytest.mark.parametrize(("file", "names"), NAMED)
def test_inventory_is_there(file: str, names: tuple[str, str]) -> None:
    assert (ROOT / "inventories/testbed" / (names[0] or names[1]) / "hosts.yml").is_file()


@pytest.mark.parametrize("folder", sorted((ROOT / "inventories/testbed").glob("*/group_vars/lockstep/")))
def test_what_an_inventory_changes_wins_over_the_base(folder: Path) -> None:
    """Ansible reads the files of a group in the order of their names, and the last one wins."""
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "base.yml", names
    assert (folder / "base.yml").is_symlink()
    assert len(names) > 1
