"""Which faults are set on this node. Read by the stand-in driver and kernel, and by the hooks inside torch and vLLM.

A fault is a file below ``/var/lib/lockstep-testbed/faults``: its name is the fault, its content a JSON object with
``value`` (text, may be empty), ``when_driver`` (a driver version or null) and ``only_multihost`` (true or false).
Standard library only, any Python >= 3.9: this file is installed in the node image and in the serving environment.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

DIRECTORY = os.environ.get("LOCKSTEP_TESTBED_FAULTS", "/var/lib/lockstep-testbed/faults")
LOADED_DRIVER = "/sys/module/nvidia/version"


@dataclass(frozen=True)
class Fault:
    """One fault that is set. ``value`` is "" where none was given."""

    name: str
    value: str = ""
    when_driver: str | None = None
    only_multihost: bool = False

    def applies(self, driver: str | None, multihost: bool) -> bool:
        """Whether the fault strikes with this driver version (None: no driver) and this reach of the work."""
        if self.when_driver is not None and self.when_driver != driver:
            return False
        return multihost or not self.only_multihost


def parse(name: str, text: str) -> Fault:
    """Make a Fault of a file's text. An empty file is a fault with no value and no condition."""
    fields = json.loads(text) if text.strip() else {}
    return Fault(
        name=name,
        value=str(fields.get("value") or ""),
        when_driver=fields.get("when_driver"),
        only_multihost=bool(fields.get("only_multihost")),
    )


def loaded_driver() -> str | None:
    """Return the version of the loaded driver, or None when none is loaded."""
    try:
        with open(LOADED_DRIVER, encoding="ascii") as version:
            return version.read().strip()
    except OSError:
        return None


def find(name: str, *, driver: str | None = None, multihost: bool = False) -> Fault | None:
    """Return the fault if it is set and strikes now.

    ``driver`` is the version to compare ``when_driver`` with: by default the loaded one. Costs one failing ``open``
    when the fault is not set.
    """
    try:
        with open(os.path.join(DIRECTORY, name), encoding="utf-8") as file:
            fault = parse(name, file.read())
    except (OSError, ValueError):
        return None
    return fault if fault.applies(driver or loaded_driver(), multihost) else None
