"""A real inventory, read by ansible-core itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager


@dataclasses.dataclass(frozen=True)
class Inventory:
    """What ansible-core gives an action of it: ``task_vars`` holds ``groups`` and ``hostvars``."""

    loader: DataLoader
    templar: Templar
    task_vars: dict[str, Any]

    @property
    def hostvars(self) -> HostVars:
        return self.task_vars["hostvars"]


def read(path: Path) -> Inventory:
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(path)])
    hostvars = HostVars(manager, VariableManager(loader=loader, inventory=manager), loader)
    task_vars = {"groups": manager.get_groups_dict(), "hostvars": hostvars}
    return Inventory(loader, Templar(loader=loader), task_vars)
