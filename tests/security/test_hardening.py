"""What the units may do: no more than they need, and what captures a hang's stacks stays possible."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.model import request as model_request
from ansible_collections.lockstep.vllm.plugins.module_utils.model import unit as model_unit

from .conftest import ROOT, unit_text

MODEL = "lockstep-model.service"
UNITS = sorted((ROOT / "roles").glob("*/templates/lockstep-*.service.j2"))
CAPABILITIES = {
    "lockstep-filter.service.j2": {"CAP_NET_ADMIN"},
    "lockstep-filter-watch.service.j2": {"CAP_NET_ADMIN"},
    "lockstep-metrics.service.j2": {"CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN", "CAP_SYSLOG"},
    "lockstep-hoststatus@.service.j2": set(),
    "lockstep-ray.service.j2": set(),
    "lockstep-vllm.service.j2": set(),
    MODEL: set(),
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


def text_of(name: str) -> str:
    """A unit by its name; that of models is made by ``systemd-run``."""
    if name != MODEL:
        return unit_text(next(unit for unit in UNITS if unit.name == name))
    asked = model_unit.Call(model_request.Request(model_request.Verb.STAGE, folder="/srv/lockstep/models"))
    return "\n".join(
        ["[Service]", f"ExecStart={' '.join(model_unit.WORKER)}", *model_unit.properties(asked, writes=True)]
    )


def settings(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each, value in re.findall(r"^(\w+)=(.*)$", text_of(name), re.MULTILINE):
        found.setdefault(each, []).append(value)
    return found


def test_every_unit_is_here() -> None:
    assert {unit.name for unit in UNITS} | {MODEL} == set(CAPABILITIES)


@pytest.mark.parametrize("name", CAPABILITIES)
def test_what_every_unit_goes_without(name: str) -> None:
    given = settings(name)
    may_be_copied_from = ("read-only",) if name == MODEL else ()
    for each, values in EVERYWHERE.items():
        allowed = (*values, *may_be_copied_from) if each == "ProtectHome" else values
        assert given.get(each, [""])[-1] in allowed, f"{name}: {each}"
    assert set(" ".join(given["CapabilityBoundingSet"]).split()) == CAPABILITIES[name]
    assert given["SystemCallFilter"]
    assert given["UMask"]


@pytest.mark.parametrize("name", [name for name in CAPABILITIES if settings(name).get("User") == ["lockstep"]])
def test_who_serves_reaches_no_bus(name: str) -> None:
    """Debian's and Ubuntu's policy lets anybody have logind run a manager of his (set-self-linger), which outlives the unit."""
    assert settings(name)["InaccessiblePaths"] == ["-/run/dbus"]


@pytest.mark.parametrize("name", ["lockstep-ray.service.j2", "lockstep-vllm.service.j2"])
def test_stacks_of_what_hangs_can_still_be_taken(name: str) -> None:
    """py-spy and gdb call them, in the unit that serves; and CUDA shares memory between processes by pidfd_getfd."""
    filters = settings(name)["SystemCallFilter"]
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
    assert settings(name)["SystemCallErrorNumber"] == ["EPERM"]


FIGURES_OF = "systemd 252"
"""The one whose figures docs/security.md has; others weigh the settings in other ways."""


def analysed_by() -> str:
    program = shutil.which("systemd-analyze")
    return subprocess.run([program, "--version"], text=True, capture_output=True, check=True).stdout if program else ""


def documented() -> dict[str, str]:
    """Exposure by unit, as the table of docs/security.md has it now."""
    rows = re.findall(
        r"^ *\| (`lockstep-[^|]*) \| [\d.–]+ \| ([\d.]+) \|", (ROOT / "docs/security.md").read_text(), re.MULTILINE
    )
    return {name: figure for names, figure in rows for name in re.findall(r"`([^`]+)`", names)}


def test_the_documented_figures_are_of_all_units() -> None:
    assert set(documented()) == {name.partition(".service")[0] for name in CAPABILITIES}


@pytest.mark.skipif(not analysed_by().startswith(f"{FIGURES_OF} "), reason=f"the figures are of {FIGURES_OF}")
@pytest.mark.parametrize("name", CAPABILITIES)
def test_the_documented_figures_are_those_of_the_units(name: str, tmp_path: Path) -> None:
    """As ``systemd-analyze security`` weighs the unit's own settings, which needs no systemd that runs."""
    unit = tmp_path / name.removesuffix(".j2").replace("@", "@x")
    unit.write_text(text_of(name))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", unit],
        text=True,
        capture_output=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert documented()[name.partition(".service")[0]] == found[1]
