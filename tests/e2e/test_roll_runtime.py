"""Another lock by a roll, under load: both replicas get its environment one after the other, and go back to the one before.

Begins and ends with both replicas serving what the inventory declares.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.lab import ROOT, Lab
from tests.e2e.rolls import HEADS, nothing_lost, roll, serving

pytestmark = pytest.mark.long

PLAYBOOK = "playbooks/upgrade_runtime.yml"
LOCK = ROOT / "roles/serving_runtime/files/locks/cpu.txt"
CACHE = ROOT / "testbed/.cache"
NAME, VERSION = "certifi", "2025.1.31"
"""A distribution of the lock that the engine imports, at another version of which the testbed gets the wheel here."""


def another_lock(folder: Path) -> Path:
    """The lock with the other version, by its hash; its wheel is among those that the hosts are offered."""
    wheels = CACHE / "mirror/wheels"
    pip = [CACHE / "pip/bin/pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", wheels, f"{NAME}=={VERSION}"], check=True, timeout=300)
    digest = hashlib.sha256((wheels / f"{NAME}-{VERSION}-py3-none-any.whl").read_bytes()).hexdigest()
    pinned = rf"(?m)^{NAME}==\S+ \\\n( +--hash=\S+( \\)?\n)+"
    text, found = re.subn(pinned, f"{NAME}=={VERSION} --hash=sha256:{digest}\n", LOCK.read_text())
    assert found == 1
    other = folder / "other.txt"
    other.write_text(text)
    return other


def version_of(lab: Lab, host: str) -> str:
    """Of the distribution, as the Python that serves sees it."""
    asked = f'import importlib.metadata; print(importlib.metadata.version("{NAME}"))'
    return lab.on(host, f"/opt/lockstep/runtime/current/bin/python -c '{asked}'")


def test_another_lock_reaches_every_replica_and_the_old_one_comes_back(pair: Lab, tmp_path: Path) -> None:
    driver = serving(pair)["a1"]
    before = {host: pair.on(host, "readlink /opt/lockstep/runtime/current") for host in HEADS}
    lock = another_lock(tmp_path)
    rolled = roll(pair, driver, playbook=PLAYBOOK, extra={"serving_runtime_lock": str(lock)})
    assert rolled.play.rc == 0, rolled.play.explained()
    nothing_lost(rolled)
    assert "canary 1 of 2" in rolled.play.text, rolled.play.explained()
    assert [version_of(pair, host) for host in HEADS] == [VERSION, VERSION]
    again = pair.play(PLAYBOOK, extra={"nvidia_driver_version": driver, "serving_runtime_lock": str(lock)})
    assert again.rc == 0, again.explained()
    assert again.changed() == {}
    back = roll(pair, driver, playbook=PLAYBOOK)
    assert back.play.rc == 0, back.play.explained()
    nothing_lost(back)
    # The environment that served before was kept, and is switched to.
    assert {host: pair.on(host, "readlink /opt/lockstep/runtime/current") for host in HEADS} == before
