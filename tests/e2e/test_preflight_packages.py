"""What is wrong with a host's packages is found before anything is touched: named, with what to type, and not a file changed.

These need hosts that answer, not a cluster that serves: the hosts may be bare. A driver is due on them.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.lab import Lab, Play, difference

pytestmark = pytest.mark.long

HOSTS = ("a1", "a2")
NEW = {"nvidia_driver_version": "580.95.05"}
DIGEST = r"""
find /etc /var/lib/apt /var/lib/dpkg /var/cache/apt /var/lib/lockstep /opt/lockstep -xdev \
    -printf '%p %T@ %s %m %l\n' 2>/dev/null | sort
find /etc /var/lib/apt /var/lib/dpkg -xdev -type f -exec sha256sum {} + | sort
find /run -maxdepth 1 -name 'lockstep-apt-*'
"""
BROKEN = """
mkdir -p /tmp/demo/DEBIAN
printf '%s\\n' 'Package: demo-agent' 'Version: 1.0' 'Architecture: all' 'Maintainer: x <x@x.invalid>' 'Description: demo' \\
    >/tmp/demo/DEBIAN/control
printf '#!/bin/sh\\ntest -e /tmp/demo-may\\n' >/tmp/demo/DEBIAN/postinst
chmod 755 /tmp/demo/DEBIAN/postinst
dpkg-deb --build /tmp/demo /tmp/demo.deb >/dev/null
! dpkg --install /tmp/demo.deb 2>/dev/null
"""
REPOSITORY = "http://mirror.testbed.test/nvidia/debian12/x86_64/"
DESCRIPTION = "/etc/apt/sources.list.d/cuda-debian12-x86_64.list"
LOCK = "import fcntl,time; f=open('/var/lib/dpkg/lock-frontend','w'); fcntl.lockf(f,fcntl.LOCK_EX); time.sleep(600)"


def digest(lab: Lab) -> dict[str, list[str]]:
    return {host: lab.on(host, DIGEST).splitlines() for host in HOSTS}


def refused(lab: Lab, playbook: str = "playbooks/upgrade_driver.yml", **extra: Any) -> tuple[Play, str]:
    """A roll that is refused, with no file of any host changed; and its one message."""
    before = digest(lab)
    play = lab.play(playbook, extra={**NEW, **extra})
    assert play.rc != 0, play.explained()
    assert difference(before, digest(lab)) == {}
    assert play.changed() == {}
    (message,) = play.failures()
    assert message.startswith("Refused before anything was changed")
    return play, message


@contextlib.contextmanager
def broken_package(lab: Lab, host: str) -> Iterator[None]:
    lab.on(host, BROKEN)
    try:
        yield
    finally:
        lab.on(host, "dpkg --purge demo-agent; rm -rf /tmp/demo /tmp/demo.deb /tmp/demo-may")


def test_a_broken_package_of_somebody_else_is_refused_with_the_command_to_type(lab: Lab) -> None:
    with broken_package(lab, "a2"):
        _play, message = refused(lab)
        assert "a2: package demo-agent 1.0 is half-configured" in message
        command = re.search(r"Next: .*ansible .*a2 -b -m ansible\.builtin\.command -a '([^']+)'", message)
        assert command, message
        lab.on("a2", f"touch /tmp/demo-may && {command[1]}")
        assert lab.play("playbooks/preflight.yml", extra=NEW).rc == 0


def test_a_second_description_of_the_repository_is_refused_by_its_file(lab: Lab) -> None:
    line = f"deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] {REPOSITORY} /"
    lab.on("a1", f"echo {shlex.quote(line)} >{DESCRIPTION}")
    try:
        _play, message = refused(lab)
        assert f"a1: {DESCRIPTION} describes {REPOSITORY} too" in message
        command = re.search(r"Next: .*ansible .*a1 -b -m ansible\.builtin\.command -a '([^']+)'", message)
        assert command, message
        lab.on("a1", command[1])
        assert lab.play("playbooks/preflight.yml", extra=NEW).rc == 0
    finally:
        lab.on("a1", f"rm -f {DESCRIPTION} {DESCRIPTION}.disabled")


def test_who_holds_a_lock_is_named_while_it_is_waited_for(lab: Lab) -> None:
    unit = "systemd-run --quiet --collect --unit=apt-user --property=RuntimeMaxSec=600"
    lab.on("a2", f"{unit} python3 -c {shlex.quote(LOCK)}")
    try:
        play, message = refused(lab, nvidia_driver_apt_lock_deadline=12)
        holder = "/var/lib/dpkg/lock-frontend by pid "
        assert re.search(rf"a2: apt is in use: {holder}.*; waited \d+ s", message), message
        assert re.search(rf"a2: waiting for \d+ s: apt is in use: {holder}", play.text), play.explained()
    finally:
        lab.on("a2", "systemctl stop apt-user")


def test_a_host_whose_packages_are_in_order_is_looked_at_and_left_as_it_was(lab: Lab) -> None:
    before = digest(lab)
    play = lab.play("playbooks/preflight.yml", extra=NEW)
    assert play.rc == 0, play.explained()
    assert difference(before, digest(lab)) == {}
