"""The testbed on a machine that has control groups of version 1 alone, or of version 2: a mount namespace that has them so."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.e2e.lab import ROOT

# What systemd in a node reports of the hierarchy that it has.
SEEN = {"v1": "tmpfs", "v2": "cgroup2fs"}
SCENARIO = """
testbed/testbed up --hosts 2
testbed/testbed exec a1 -- stat -fc 'node sees %T' /sys/fs/cgroup
testbed/testbed reboot a1 --wait
testbed/testbed kill a2
testbed/testbed start a2
until testbed/testbed exec a2 -- test -e /run/sshd.pid; do sleep 1; done
testbed/testbed ssh a1 -- systemctl is-system-running --wait
testbed/testbed ssh a2 -- systemctl is-system-running --wait
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount control groups")
@pytest.mark.parametrize("version", SEEN)
def test_hosts_boot_reboot_and_come_back(version: str) -> None:
    names = {"LOCKSTEP_TESTBED": "cgroups", "LOCKSTEP_TESTBED_PREFIX": "10.89.80"}
    done = subprocess.run(
        [ROOT / "tools/with-cgroups", version, "sh", "-exc", f"trap 'testbed/testbed down' EXIT\n{SCENARIO}"],
        cwd=ROOT,
        env={**os.environ, **names},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert f"node sees {SEEN[version]}" in lines
    assert lines.count("running") == 2
    assert "removed a1, a2, mirror" in lines[-1]
