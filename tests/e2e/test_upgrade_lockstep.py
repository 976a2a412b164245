"""A new version of Lockstep, as another checkout: what it would restart is said before, and a comment restarts nothing.

Begins and ends with replica_a serving.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.lab import ROOT, Lab
from tests.e2e.test_site import HEAD, HOSTS, answers

pytestmark = pytest.mark.long

UNIT = "roles/vllm_server/templates/lockstep-vllm.service.j2"
INSTALLED = "/etc/systemd/system/lockstep-vllm.service"
COMMENT, SETTING = "# The supervisor bounds its own waits", "RestartSec=5"


@dataclasses.dataclass(frozen=True)
class Checkout:
    """The files that git has of this checkout, elsewhere."""

    folder: Path
    lab: Lab

    @classmethod
    def made(cls, folder: Path, lab: Lab) -> Checkout:
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        packed = subprocess.run(
            ["tar", "--create", "--null", "--files-from=-"], cwd=ROOT, input=names, check=True, capture_output=True
        )
        folder.mkdir()
        subprocess.run(["tar", "--extract"], cwd=folder, input=packed.stdout, check=True)
        return cls(folder, lab)

    def edited(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new))

    def play(self, playbook: str) -> str:
        """What the run says, with single spaces; it has to end well."""
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", self.lab.inventory, playbook],
            cwd=self.folder,
            env={
                **os.environ,
                **self.lab.environment,
                "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
                "NO_COLOR": "1",
            },
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return " ".join(done.stdout.split())


def running(lab: Lab) -> list[str]:
    """Which units run on both hosts, since when, and their processes."""
    found = lab.snapshot(HOSTS)
    return [f"{host} {line}" for host in HOSTS for line in found[host] if line.startswith("unit ")]


def test_what_a_new_version_would_restart_is_said_and_a_comment_restarts_nothing(lab: Lab, tmp_path: Path) -> None:
    first = lab.play()
    assert first.rc == 0, first.explained()
    new = Checkout.made(tmp_path / "new", lab)
    before = running(lab)
    try:
        new.edited(UNIT, COMMENT, f"# Another comment.\n{COMMENT}")
        assert "another way" not in new.play("playbooks/preflight.yml")
        new.play("site.yml")
        assert running(lab) == before, "a comment restarted something"

        new.edited(UNIT, SETTING, "RestartSec=6")
        said = new.play("playbooks/preflight.yml")
        assert "this version of Lockstep does it in another way" in said, said
        assert "replica_a" in said
        assert running(lab) == before, "preflight restarted something"

        new.play("site.yml")
        assert lab.on(HEAD, f"grep -c RestartSec=6 {INSTALLED}") == "1"
        assert running(lab) != before
        assert answers(lab)
    finally:
        back = lab.play()
        assert back.rc == 0, back.explained()
    assert lab.on(HEAD, f"grep -c {SETTING} {INSTALLED}") == "1"
    assert answers(lab)
