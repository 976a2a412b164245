from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import inventory


@pytest.fixture
def read_inventory(tmp_path: Path) -> Callable[[dict[str, Any]], inventory.Inventory]:
    """Reads an inventory from the content of its group ``all``."""

    def read(groups: dict[str, Any]) -> inventory.Inventory:
        path = tmp_path / "inventory.yml"
        path.write_text(yaml.safe_dump({"all": groups}, sort_keys=False))
        return inventory.read(path)

    return read
