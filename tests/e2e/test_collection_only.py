"""Nothing but the built collection, in an empty folder: it brings bare hosts up, and what it prints can be typed there.

Begins and ends with bare hosts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import ROOT, Lab

pytestmark = pytest.mark.long

BIN = Path(sys.executable).parent


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """An empty folder, a home with the collection in it, and the inventory of the testbed."""

    folder: Path
    environment: dict[str, str]
    inventory: Path

    def run(self, *command: str, deadline: float = 1500) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )

    def play(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("ansible-playbook", "-i", str(self.inventory), f"lockstep.vllm.{name}", *arguments)


@pytest.fixture
def elsewhere(lab: Lab, tmp_path: Path) -> Iterator[Elsewhere]:
    lab.testbed("down")
    lab.testbed("up", "--hosts", "2", deadline=900)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "LOCKSTEP_"))}
    environment = {
        **kept,
        **lab.environment,
        "HOME": str(tmp_path / "home"),
        "PATH": f"{BIN}:{kept['PATH']}",
        "NO_COLOR": "1",
    }
    for name in ("home", "empty"):
        (tmp_path / name).mkdir()
    made = Elsewhere(tmp_path / "empty", environment, lab.inventory)
    for command in (
        ["ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), str(ROOT)],
        ["ansible-galaxy", "collection", "install", "--offline"],
    ):
        built = [str(path) for path in tmp_path.glob("lockstep-vllm-*.tar.gz")] if "install" in command else []
        done = made.run(*command, *built, deadline=300)
        assert done.returncode == 0, done.stdout + done.stderr
    yield made
    lab.testbed("down")
    lab.testbed("up", "--hosts", "2", deadline=900)


def test_collection_alone_brings_bare_hosts_up(elsewhere: Elsewhere, lab: Lab) -> None:
    bare = elsewhere.play("preflight")
    assert bare.returncode == 0, bare.stdout + bare.stderr
    shown = " ".join(re.sub(r'",?\n\s*"', " ", bare.stdout).split())  # Ansible's own screen: a list of lines
    assert "no journal and no report of this run are kept" in shown
    copy = re.search(r"Next: (cp \S+ansible\.cfg) \.", shown)
    assert copy, bare.stdout
    elsewhere.run(*shlex.split(copy[1]), ".")
    assert (elsewhere.folder / "ansible.cfg").is_file()

    brought_up = elsewhere.play("site")
    said = brought_up.stdout + brought_up.stderr
    assert brought_up.returncode == 0, said[-6000:]
    assert "no journal" not in said
    (report,) = (elsewhere.folder / ".cache/lockstep/runs").glob("*/report.html")
    assert str(report.relative_to(elsewhere.folder)) in said
    assert {path.name for path in elsewhere.folder.iterdir()} == {"ansible.cfg", ".cache"}

    status = elsewhere.play("status", "-e", "status_format=json")
    assert status.returncode == 0, status.stdout + status.stderr
    found = re.search(r"^\{$.*?^\}$", status.stdout, re.MULTILINE | re.DOTALL)
    assert found, status.stdout
    assert [replica["serving"] for replica in json.loads(found[0])["replicas"]] == [True]

    again = elsewhere.play("site")
    assert again.returncode == 0, again.stdout + again.stderr

    # What it tells to type is typed, from somewhere else.
    refused = elsewhere.play("upgrade_driver", "-e", "nvidia_driver_version=999.99.99")
    assert refused.returncode != 0
    wanted = re.search(r"next +(.*ansible(?:-playbook)? .*)", refused.stdout)
    if wanted:
        command = re.sub(r"\s*│?$", "", wanted[1])
        assert "lockstep.vllm." in command or " -m " in command, command
        assert str(elsewhere.folder) in command, command
