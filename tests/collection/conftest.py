"""The collection as its users get it: built, and installed into an empty path."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machine import PATIENCE

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

Run = Callable[..., str]


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the checkout, so that nothing is found there by accident."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the artefact and of the collection that was installed from it; built once, also by several workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            galaxy = [BIN / "ansible-galaxy", "collection"]
            subprocess.run([*galaxy, "build", "--output-path", folder, ROOT], check=True, capture_output=True)
            (tarball,) = folder.glob("lockstep-vllm-*.tar.gz")
            install = [*galaxy, "install", "--offline", tarball, "-p", folder / "installed"]
            subprocess.run(install, check=True, capture_output=True, cwd=folder, env=environment(folder))
            (folder / "complete").touch()
    return folder


@pytest.fixture(scope="session")
def artefact(built: Path) -> Path:
    (tarball,) = built.glob("lockstep-vllm-*.tar.gz")
    return tarball


def environment(built: Path) -> dict[str, str]:
    """In which only the installed collection is found."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return plain | {"ANSIBLE_COLLECTIONS_PATH": str(built / "installed"), "ANSIBLE_HOME": str(built / "home")}


@pytest.fixture(scope="session")
def run(elsewhere: Path, built: Path) -> Run:
    """Run a command where only the installed collection can be found; returns what it printed.

    Where that is allowed, it sees no process but its own: those of a testbed that is up use the GPUs of their pretended hosts.
    """
    alone = ["unshare", *([] if os.geteuid() == 0 else ["--map-current-user"]), "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []  # not allowed here

    def run(*command: str | Path) -> str:
        outcome = subprocess.run(
            [*alone, BIN / command[0], *command[1:]],
            cwd=elsewhere,
            env=environment(built),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert outcome.returncode == 0, f"{command}\n{outcome.stdout}\n{outcome.stderr}"
        return outcome.stdout

    return run
