"""A real inventory, read by ansible-core itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager


@dataclasses.dataclass(frozen=True)
class Inventory:
    loader: DataLoader
    templar: Templar
    task_vars: dict[str, Any]

    @property
    def hostvars(self) -> HostVars:
        return self.task_vars["hostvars"]


@pytest.fixture
def read_inventory(tmp_path: Path) -> Callable[[dict[str, Any]], Inventory]:
    def read(groups: dict[str, Any]) -> Inventory:
        path = tmp_path / "inventory.yml"
        path.write_text(yaml.safe_dump({"all": groups}, sort_keys=False))
        loader = DataLoader()
        manager = InventoryManager(loader=loader, sources=[str(path)])
        hostvars = HostVars(manager, VariableManager(loader=loader, inventory=manager), loader)
        task_vars = {"groups": manager.get_groups_dict(), "hostvars": hostvars}
        return Inventory(loader, Templar(loader=loader), task_vars)

    return read
