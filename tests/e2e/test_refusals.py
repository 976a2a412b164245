"""Before touching anything, `site.yml` refuses what cannot work: one clear message, the host, what to do, nothing changed.

These need hosts that answer, not a cluster that serves: the hosts may be bare.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.lab import Lab, difference

HOSTS = ("a1", "a2")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is asked that cannot work, and what the refusal has to name."""

    names: tuple[str, ...]
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    overlay: str | None = None
    meanwhile: Callable[[Lab], contextlib.AbstractContextManager[None]] = lambda lab: contextlib.nullcontext()


@contextlib.contextmanager
def fault(lab: Lab, host: str, *arguments: str) -> Iterator[None]:
    lab.testbed("fault", host, *arguments)
    try:
        yield
    finally:
        lab.testbed("fault", host, "--clear")


@contextlib.contextmanager
def stopped(lab: Lab, host: str) -> Iterator[None]:
    lab.testbed("stop", host)
    try:
        yield
    finally:
        lab.testbed("start", host)
        lab.testbed("up", "--hosts", "2")


@contextlib.contextmanager
def listener(lab: Lab, host: str, port: int) -> Iterator[None]:
    program = f"import socket,time; s=socket.create_server(('0.0.0.0',{port})); time.sleep(600)"
    lab.on(host, f"systemd-run --quiet --unit=squatter --property=RuntimeMaxSec=600 python3 -c {shlex.quote(program)}")
    try:
        yield
    finally:
        lab.on(host, "systemctl stop squatter")


@contextlib.contextmanager
def fabric_manager(lab: Lab, host: str, version: str) -> Iterator[None]:
    """A fabric manager of this version, from the testbed's repository, and nothing else of a driver."""
    package = "nvidia-fabricmanager-550"
    url = f"http://mirror.testbed.test/nvidia/debian12/x86_64/{package}_{version}-1_amd64.deb"
    lab.on(host, f"curl -sSf -o /tmp/{package}.deb {url} && dpkg --install /tmp/{package}.deb")
    try:
        yield
    finally:
        lab.on(host, f"dpkg --purge {package}; rm /tmp/{package}.deb")


CASES = {
    "no_head": Case(
        overlay="{all: {hosts: {a1: {ray_node_role: worker}}}}", names=("replica_a", "no head", "ray_node_role")
    ),
    "two_heads": Case(overlay="{all: {hosts: {a2: {ray_node_role: head}}}}", names=("replica_a", "2 heads", "a1, a2")),
    "host_in_two_replicas": Case(
        overlay="{lockstep: {children: {replica_z: {hosts: {a2: {}}}}}}", names=("a2", "replica_a", "replica_z")
    ),
    "unknown_group": Case(
        overlay="{replica_y: {hosts: {z1: {ray_node_role: head}}}}", names=("z1", "replica_y", "child of 'lockstep'")
    ),
    "version_not_in_the_repository": Case(
        extra={"nvidia_driver_version": "550.999.01"}, names=("a1", "550.999.01", "550.127.05")
    ),
    "driver_too_old_for_cuda": Case(
        extra={"nvidia_driver_version": "550.127.05", "serving_runtime_lock": "cuda"},
        names=("a1", "550.127.05", "CUDA"),
    ),
    "host_unreachable": Case(meanwhile=lambda lab: stopped(lab, "a2"), names=("a2", "unreachable")),
    "address_not_on_the_interface": Case(extra={"gpu_host_interface": "lo"}, names=("a1", "lo", "gpu_host_interface")),
    "port_taken": Case(
        extra={"vllm_server_port": 8123},
        meanwhile=lambda lab: listener(lab, "a1", 8123),
        names=("a1", "8123", "squatter"),
    ),
    "names_do_not_resolve": Case(
        extra={"gpu_host_manage_names": False},
        meanwhile=lambda lab: fault(lab, "a2", "names_unresolvable"),
        names=("a2", "resolve", "gpu_host_manage_names"),
    ),
    "disk_is_short": Case(
        meanwhile=lambda lab: fault(lab, "a2", "disk_full", "/opt"),
        names=("a2", "/opt has 0 MiB free", "the runtime step needs 4096", "make room"),
    ),
    "drivers_of_a_replica_differ": Case(
        overlay="{all: {hosts: {a2: {nvidia_driver_version: 550.90.07}}}}",
        names=("replica_a", "nvidia_driver_version differs", "a1=550.127.05", "a2=550.90.07", "set it once"),
    ),
    "action_of_a_roll": Case(
        extra={"rollout_action": "abort"},
        names=("rollout_action", "playbooks/upgrade_driver.yml -e rollout_action=abort"),
    ),
    "runtimes_of_a_replica_differ": Case(
        overlay="{all: {hosts: {a2: {serving_runtime_lock: /nowhere.txt}}}}",
        names=("replica_a", "serving_runtime_lock differs", "a1=cpu", "a2=/nowhere.txt"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_work_is_refused_before_anything_changes(lab: Lab, name: str) -> None:
    case = CASES[name]
    with case.meanwhile(lab):
        alive = [host for host in HOSTS if lab.on(host, "true; echo up", check=False) == "up"]
        before = lab.snapshot(alive)
        play = lab.play(extra=case.extra, overlay=case.overlay)
        after = lab.snapshot(alive)
    assert play.rc != 0, play.explained()
    assert difference(before, after) == {}
    messages = play.failures()
    assert len(messages) == 1, f"not one message but {len(messages)}: {messages}"
    for name in case.names:
        assert name in messages[0], f"the refusal does not name {name!r}: {messages[0]}"
    assert play.changed() == {}


def test_a_known_bad_combination_is_refused_unless_it_is_named(lab: Lab) -> None:
    """Where Lockstep installs drivers it brings fabric manager along: only a platform that does so itself can differ."""
    verified = {"nvidia_driver_source": "verify"}
    named = 'nvidia_driver_allow_known_bad": ["fabric-manager-differs"]'
    with fabric_manager(lab, "a2", "550.90.07"):
        before = lab.snapshot(HOSTS)
        refused = lab.play(extra=verified)
        allowed = lab.play(extra={**verified, "nvidia_driver_allow_known_bad": ["fabric-manager-differs"]})
        assert difference(before, lab.snapshot(HOSTS)) == {}
    (message,) = refused.failures()
    assert re.search(r"^\W*a2: Fabric manager in another version .*error 802", message, re.MULTILINE), message
    assert named in message, message
    # These hosts have no driver to verify, and are still refused for that.
    (message,) = allowed.failures()
    assert "package absent" in message, message
    assert all("warning: " in line for line in message.splitlines() if "abric manager" in line), message
