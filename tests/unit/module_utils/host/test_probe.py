"""What the probe reads on this machine, and of texts."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import socket
import time
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import holders, kernel_log
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import state as driver_state
from ansible_collections.lockstep.vllm.plugins.module_utils.host import probe as host_probe

real_units = host_probe.units
SHOWN = """\
Id=lockstep-ray.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
Result=success
StateChangeTimestamp=@1795640737
NRestarts=2
ConditionResult=yes

Id=haproxy.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
Result=success
StateChangeTimestamp=
"""


def test_units() -> None:
    assert host_probe.units(["lockstep-ray.service", "haproxy.service"], lambda *_: CommandResult(0, SHOWN)) == {
        "lockstep-ray.service": {"load": "loaded", "active": "active", "enabled": "enabled", "result": "success", "restarts": 2, "since": "1795640737"},
        "haproxy.service": {"load": "not-found", "active": "inactive", "enabled": "", "result": "success", "restarts": 0, "since": None},
    }  # fmt: skip


def test_a_plan_s_probe_reads_neither_processes_nor_kernel_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((holders, "holders"), (kernel_log, "xids")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("a plan needs none of it"))
    driver = host_probe.collect({"preflight": True})["driver"]
    assert "error" not in driver
    assert not set(driver_state.COSTLY) & set(driver)


def test_costly_parts_of_the_driver_are_read_on_request() -> None:
    assert set(driver_state.COSTLY) < set(host_probe.collect({"driver_also": driver_state.COSTLY})["driver"])


def test_the_system_as_the_standard_library_reports_it() -> None:
    state = host_probe.collect({})
    assert state["os"]["python"] == platform.python_version()
    assert state["os"]["arch"] == platform.machine()
    assert state["os"]["distribution"] == platform.freedesktop_os_release()["ID"]
    assert state["disk_free_mib"]["/var"] == pytest.approx(shutil.disk_usage("/var").free >> 20, rel=0.2)


def test_boot_is_when_the_first_process_started() -> None:
    boot = host_probe.collect({})["boot"]
    assert 0 < int(boot["since"]) <= time.time() + 1
    assert int(boot["monotonic_us"]) <= time.clock_gettime(time.CLOCK_BOOTTIME) * 1e6


def test_a_taken_port_names_who_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        found = host_probe.taken_ports([port, free.getsockname()[1]])
    assert set(found) == {str(port)}
    assert str(os.getpid()) in found[str(port)] or found[str(port)].endswith(".service")


def test_a_part_that_cannot_be_read_names_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = CommandResult(1, stderr="Failed to connect to bus")
    monkeypatch.setattr(host_probe, "units", lambda names: real_units(names, lambda *_: failed))
    assert host_probe.collect({})["units"] == {"error": "SystemctlError: systemctl show: Failed to connect to bus"}


@pytest.mark.parametrize(("owner", "taken"), [("lockstep-ray.service", False), ("redis.service", True)])
def test_ports_of_lockstep_s_own_units_are_not_taken(owner: str, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_probe, "_process_owner", lambda _pid: owner)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert host_probe.taken_ports([port]) == ({str(port): owner} if taken else {})


def test_names_are_looked_up_for_every_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        host_probe, "name_problem", lambda name, address: f"{name} is not {address}" if name == "a2" else None
    )
    preflight = host_probe.collect({"preflight": True, "peers": {"a1": "10.0.0.1", "a2": "10.0.0.2"}})["preflight"]
    assert preflight["names"] == {"a1": None, "a2": "a2 is not 10.0.0.2"}


HOST_FILES = {
    "by the inventory's name": [("10.0.0.1", "gpu-01")],
    "by its own name first, as a cloud writes it": [
        ("10.0.0.1", "ip-10-0-0-1.internal ip-10-0-0-1"),
        ("10.0.0.1", "gpu-01"),
    ],
    "with a domain": [("10.0.0.1", "gpu-01.example.com gpu-01")],
    "another machine's": [("10.0.0.7", "gpu-01")],
    "no name": [("10.0.0.9", "gpu-02")],
    "a name that means another address": [("10.0.0.1", "gpu-01"), ("10.0.0.2", "old")],
}


@pytest.mark.parametrize(
    ("file", "name", "problem"),
    [
        ("by the inventory's name", "gpu-01", None),
        ("by its own name first, as a cloud writes it", "gpu-01", None),
        ("with a domain", "gpu-01", None),
        ("another machine's", "gpu-01", "gpu-01 resolves to 10.0.0.7, not to 10.0.0.1"),
        ("no name", "gpu-01", "gpu-01 does not resolve"),
        ("a name that means another address", "gpu-01", "10.0.0.1 resolves to old, not to gpu-01"),
    ],
)
def test_names_resolve_both_ways(monkeypatch: pytest.MonkeyPatch, file: str, name: str, problem: str | None) -> None:
    """As glibc does of /etc/hosts: all addresses of a name, and the names of an address's first line."""
    lines = [(address, names.split()) for address, names in HOST_FILES[file]]

    def forward(asked: str, *_options: object) -> list[tuple[object, ...]]:
        found = [(None, None, None, "", (address, 0)) for address, names in lines if asked in names]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    def backward(asked: str) -> tuple[str, list[str], list[str]]:
        if file == "a name that means another address":
            return "old", [], [asked]
        for address, names in lines:
            if address == asked:
                return names[0], names[1:], [address]
        raise socket.herror(1, "Unknown host")

    monkeypatch.setattr(socket, "getaddrinfo", forward)
    monkeypatch.setattr(socket, "gethostbyaddr", backward)
    found = host_probe.name_problem(name, "10.0.0.1")
    assert found is None if problem is None else found is not None and found.startswith(problem)


SOCKETS = """\
10.0.0.11:6386 lockstep-hoststatus.socket -
[::]:22        ssh.socket                 ssh.service
"""


@pytest.mark.parametrize(("port", "owner"), [(6386, "lockstep-hoststatus.socket"), (22, "ssh.socket")])
def test_a_port_that_systemd_holds_is_its_socket_unit_s(port: int, owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_probe, "_command", lambda argv: SOCKETS)
    assert host_probe._listener("1", port) == owner


def test_ports_of_our_own_units_are_free_to_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_probe, "_listener", lambda pid, port: "lockstep-hoststatus.socket")
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert host_probe.taken_ports([ours.getsockname()[1]]) == {}


def test_a_router_is_read_where_lockstep_has_configured_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_probe, "ROUTER_MANIFEST", tmp_path / "vllm_haproxy.json")
    assert "router" not in host_probe.collect({})
    (tmp_path / "vllm_haproxy.json").write_text("{}")
    assert "HAProxy does not answer" in str(host_probe.collect({})["router"])


@pytest.mark.parametrize(
    ("content", "wanted", "drops"),
    [
        ("k\n", ["k", "o"], False),
        ("k\n", ["n", "k"], False),
        ("k\n", ["n"], True),
        (None, ["n"], False),
        ("", ["n"], False),
    ],
)
def test_a_key_that_would_be_dropped(content: str | None, wanted: list[str], drops: bool, tmp_path: Path) -> None:
    path = tmp_path / "vllm-api-key"
    if content is not None:
        path.write_text(content)
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in wanted]
    assert host_probe._drops_api_key(digests, path) is drops
