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
