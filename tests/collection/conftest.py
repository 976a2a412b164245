"""The collection as its users get it: built, and installed into an empty path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

Run = Callable[..., str]


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the checkout, so that nothing is found there by accident."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="session")
def artefact(elsewhere: Path) -> Path:
    subprocess.run(
        [BIN / "ansible-galaxy", "collection", "build", "--output-path", elsewhere, ROOT],
        check=True,
        capture_output=True,
        text=True,
    )
    (tarball,) = elsewhere.glob("lockstep-vllm-*.tar.gz")
    return tarball


@pytest.fixture(scope="session")
def run(elsewhere: Path, artefact: Path) -> Run:
    """Run a command where only the installed collection can be found; returns what it printed.

    Where that is allowed, it sees no process but its own: those of a testbed that is up use the GPUs of their pretended hosts.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(elsewhere / "installed"), "ANSIBLE_HOME": str(elsewhere / "home")}

    alone = ["unshare", *([] if os.geteuid() == 0 else ["--map-current-user"]), "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []  # not allowed here

    def run(*command: str | Path) -> str:
        outcome = subprocess.run(
            [*alone, BIN / command[0], *command[1:]],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert outcome.returncode == 0, f"{command}\n{outcome.stdout}\n{outcome.stderr}"
        return outcome.stdout

    run("ansible-galaxy", "collection", "install", "--offline", artefact, "-p", elsewhere / "installed")
    return run
