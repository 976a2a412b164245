"""What the units may do: no more than they need, and what captures a hang's stacks stays possible."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import ROOT, unit_text

UNITS = sorted((ROOT / "roles").glob("*/templates/lockstep-*.service.j2"))
CAPABILITIES = {
    "lockstep-filter.service.j2": {"CAP_NET_ADMIN"},
    "lockstep-filter-watch.service.j2": {"CAP_NET_ADMIN"},
    "lockstep-metrics.service.j2": {"CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN", "CAP_SYSLOG"},
    "lockstep-hoststatus@.service.j2": set(),
    "lockstep-ray.service.j2": set(),
    "lockstep-vllm.service.j2": set(),
}
EVERYWHERE = {
    "NoNewPrivileges": ("yes", "true"),
    "ProtectSystem": ("strict",),
    "ProtectHome": ("yes", "true"),
    "RestrictNamespaces": ("yes",),
    "RestrictSUIDSGID": ("yes", "true"),
    "LockPersonality": ("yes", "true"),
    "SystemCallArchitectures": ("native",),
}


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit_text(unit), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_every_unit_is_here() -> None:
    assert {unit.name for unit in UNITS} == set(CAPABILITIES)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_every_unit_goes_without(unit: Path) -> None:
    given = settings(unit)
    for name, values in EVERYWHERE.items():
        assert given.get(name, [""])[-1] in values, f"{unit.name}: {name}"
    assert set(" ".join(given["CapabilityBoundingSet"]).split()) == CAPABILITIES[unit.name]
    assert given["SystemCallFilter"]
    assert given["UMask"]


@pytest.mark.parametrize("name", ["lockstep-ray.service.j2", "lockstep-vllm.service.j2"])
def test_stacks_of_what_hangs_can_still_be_taken(name: str) -> None:
    """py-spy and gdb call them, in the unit that serves; and CUDA shares memory between processes by pidfd_getfd."""
    (unit,) = [unit for unit in UNITS if unit.name == name]
    filters = settings(unit)["SystemCallFilter"]
    assert all(line.startswith("~") for line in filters), (
        "a list of what is allowed would have to name all of CUDA's calls"
    )
    denied = set(" ".join(line[1:] for line in filters).split())
    assert denied & {"@mount", "@module", "@reboot", "bpf", "userfaultfd"} == {
        "@mount",
        "@module",
        "@reboot",
        "bpf",
        "userfaultfd",
    }
    assert not denied & {"@debug", "@ipc", "@process", "ptrace", "process_vm_readv", "pidfd_getfd", "@memlock", "mbind"}
    assert settings(unit)["SystemCallErrorNumber"] == ["EPERM"]
