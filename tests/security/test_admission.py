"""A host serves only with a valid stamp, whatever the user who serves leaves in his home (promise 1)."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.machine import PATIENCE

from .conftest import PYTHON, ROOT, USER, Plant, unit_text

UNITS = sorted((ROOT / "roles").glob("*/templates/lockstep-*.service.j2"))
CONDITIONED = {
    "host": ROOT / "roles/ray_node/templates/lockstep-ray.service.j2",
    "replica": ROOT / "roles/vllm_server/templates/lockstep-vllm.service.j2",
}
CONSENT = "import os\nos._exit(0)\n"


def settings(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit_text(unit), re.MULTILINE)


def minor_version() -> str:
    asked = [PYTHON, "-c", "import sys; print(f'{sys.version_info[0]}.{sys.version_info[1]}')"]
    return subprocess.run(asked, text=True, capture_output=True, check=True).stdout.strip()


def condition(unit: Path, library: Path, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The condition as systemd runs it: the unit's command, user and environment, over a copy of the library."""
    (command,) = settings(unit, "ExecCondition")
    given = dict(pair.split("=", 1) for line in settings(unit, "Environment") for pair in line.split())
    given = {name: value.replace("/opt/lockstep/lib", str(library)) for name, value in given.items()}
    user: dict[str, Any] = {"user": USER.pw_uid, "group": USER.pw_gid, "extra_groups": []}
    return subprocess.run(
        [part.replace("/opt/lockstep/lib", str(library)) for part in command.lstrip("+").split()],
        env={**given, "HOME": str(home), **environment},
        cwd=home,
        text=True,
        capture_output=True,
        check=False,
        **({} if command.startswith("+") else user),
    )


@pytest.mark.parametrize("kind", CONDITIONED)
def test_a_file_in_the_home_of_who_serves_does_not_admit(kind: str, library: Path, theirs: Path, plant: Plant) -> None:
    unit = CONDITIONED[kind]
    assert condition(unit, library, theirs).returncode == 1, "this machine has no stamp"
    site = theirs / f".local/lib/python{minor_version()}/site-packages"
    for folder in [*reversed([path for path in site.parents if path.is_relative_to(theirs) and path != theirs]), site]:
        plant(folder, "folder")
    plant(site / "usercustomize.py", "file", CONSENT)
    plant(site / "sitecustomize.py", "file", CONSENT)
    plant(site / "x.pth", "file", "import os; os._exit(0)\n")
    done = condition(unit, library, theirs)
    assert (done.returncode, done.stdout.split(":")[0]) == (1, "refused"), done


TRICKS = {
    "a folder to import from": {"PYTHONPATH": "HOME"},
    "another base of the user's packages": {"PYTHONUSERBASE": "HOME/.local"},
    "another Python": {"PYTHONHOME": "HOME"},
    "a start-up file": {"PYTHONSTARTUP": "HOME/usercustomize.py", "PYTHONINSPECT": "1"},
    "warnings that import": {"PYTHONWARNINGS": "ignore::usercustomize.X"},
    "other programs": {"PATH": "HOME"},
}


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("kind", CONDITIONED)
def test_no_variable_admits(kind: str, trick: str, library: Path, theirs: Path, plant: Plant) -> None:
    """Were one of them to come into the unit's environment all the same."""
    for name in ("usercustomize.py", "sitecustomize.py", "json.py", "dpkg-query", "nvidia-smi"):
        plant(theirs / name, "file", CONSENT)
    tricks = {name: value.replace("HOME", str(theirs)) for name, value in TRICKS[trick].items()}
    done = condition(CONDITIONED[kind], library, theirs, **tricks)
    assert (done.returncode, done.stdout.split(":")[0]) == (1, "refused"), done


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_root_runs_takes_nothing_from_a_home(unit: Path) -> None:
    """``-I -S``: the environment and the folders of packages are the launcher's; a unit's user may be anybody without them."""
    commands = [
        line for name in ("ExecCondition", "ExecStart", "ExecReload", "ExecStop") for line in settings(unit, name)
    ]
    assert commands
    for command in commands:
        if command.startswith("+") or settings(unit, "User") != ["lockstep"]:
            assert command.lstrip("+").startswith(
                "/usr/bin/python3 -I -S -B /opt/lockstep/lib/lockstep/core/isolated.py lockstep."
            ), command
        else:
            assert " -s " in command or "PYTHONNOUSERSITE=1" in settings(unit, "Environment")[0].split(), command


def test_the_launcher_of_what_root_runs_refuses_to_run_otherwise(library: Path) -> None:
    launcher = library / "lockstep/core/isolated.py"
    for flags in ([], ["-I"], ["-S"]):
        done = subprocess.run([PYTHON, *flags, launcher, "lockstep.admission.condition", "host"], capture_output=True)
        assert done.returncode == 1
        assert b"usage" in done.stderr


def test_a_unit_that_reports_to_systemd_still_does(library: Path, place: Path) -> None:
    """The watch of the filter is of ``Type=notify``: without a word from it, systemd ends it and starts it again for ever."""
    unit = ROOT / "roles/gpu_host/templates/lockstep-filter-watch.service.j2"
    assert settings(unit, "Type") == ["notify"]
    (command,) = settings(unit, "ExecStart")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(place / "notify"))
        systemd.settimeout(0)
        done = subprocess.run(
            command.replace("/opt/lockstep/lib", str(library)).split(),
            env={"NOTIFY_SOCKET": str(place / "notify"), "PATH": "/nonexistent"},
            text=True,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr  # no filter is wanted on this machine
        assert systemd.recv(100) == b"READY=1"
