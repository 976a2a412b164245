"""What a host's packet filter is made from: clients, routers, and how the controller reaches the host."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.host import filter_setup, probe
from ansible_collections.lockstep.vllm.plugins.module_utils.host.filter_setup import Connection
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import firewall_live

HERE = Connection("10.0.0.3", 22)


@pytest.mark.parametrize(
    ("clients", "connection", "expected"),
    [
        (["controller"], HERE, ["10.0.0.3", "10.0.0.5"]),
        (["controller", "10.40.0.0/16"], HERE, ["10.0.0.3", "10.0.0.5", "10.40.0.0/16"]),
        (["10.40.0.0/16"], HERE, ["10.0.0.5", "10.40.0.0/16"]),
        ([], HERE, ["10.0.0.5"]),
        (["controller"], None, ["10.0.0.5"]),
        (["any"], HERE, ["10.0.0.5", "any"]),
    ],
)
def test_who_may_reach_the_api(clients: list[str], connection: Connection | None, expected: list[str]) -> None:
    found = filter_setup.record(clients, ["10.0.0.5"], [], None, connection)
    assert found == {"clients": expected, "open": [], "ssh_port": connection.port if connection else None}


def test_what_means_nothing_is_refused_before_it_is_written() -> None:
    with pytest.raises(ValueError, match="'gpu-clients' is neither"):
        filter_setup.record(["gpu-clients"], [], [], None, HERE)
    with pytest.raises(ValueError, match="'hub' is neither"):
        filter_setup.record([], [], [], ["hub"], HERE)


@pytest.mark.parametrize("egress", [[], ["10.50.0.0/16", "10.40.0.2"]])
def test_where_what_serves_may_go_is_recorded_only_where_it_is_limited(egress: list[str]) -> None:
    assert "egress" not in filter_setup.record([], [], [], None, HERE)
    assert filter_setup.record([], [], [], egress, HERE)["egress"] == sorted(egress)


def process(proc: Path, pid: int, parent: int, environ: bytes = b"") -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(f"{pid} (x) S {parent} " + "0 " * 17 + "5 0\n")
    (folder / "environ").write_bytes(environ)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"A=1\0SSH_CONNECTION=10.0.0.3 51234 10.0.0.11 22\0B=2\0", HERE),
        (b"SSH_CONNECTION=fe80::1%eth0 51234 fe80::2%eth0 40022\0", Connection("fe80::1", 40022)),
        (b"SSH_CONNECTION=::ffff:10.0.0.3 1 ::ffff:10.0.0.11 22\0", HERE),
        (b"SSH_CONNECTION=UNKNOWN\0", None),
        (b"", None),
    ],
)
def test_the_connection_is_found_beyond_sudo(text: bytes, expected: Connection | None, tmp_path: Path) -> None:
    """Python below sudo below sshd's shell: sudo takes the variable away (env_reset)."""
    process(tmp_path, 70, 1)
    process(tmp_path, 80, 70, text)
    process(tmp_path, 90, 80, b"SUDO_USER=ops\0")
    process(tmp_path, 95, 90)
    assert filter_setup.ssh_connection(tmp_path, 95) == expected


def test_a_service_that_is_cut_off_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listeners = {
        "40001": "rpc.statd (pid 7)",
        "40002": "open.service",
        "20001": "ray::IDLE (pid 9)",
        "9999": "an unknown process",
    }
    asked: list[set[int]] = []

    def taken(ports: set[int], from_outside: bool) -> dict[str, str]:
        asked.append(ports)
        assert from_outside
        return {port: owner for port, owner in listeners.items() if int(port) in ports}

    monkeypatch.setattr(firewall_live, "SETTINGS", tmp_path / "filter.json")
    monkeypatch.setattr(firewall_live, "closed", lambda: (range(20000, 21000), range(22, 23), range(32768, 61000)))
    monkeypatch.setattr(probe, "taken_ports", taken)
    (tmp_path / "filter.json").write_text(json.dumps({"open": [{"ports": "40002-40009"}], "ssh_port": 22}))
    (line,) = filter_setup.cut_off()
    assert "port 40001 of" in line
    assert "(rpc.statd (pid 7))" in line
    assert "gpu_host_filter_open: [{ports: 40001}]" in line
    assert not asked[0] & {22, 40002}


def listener(where: tuple[Any, ...], family: socket.AddressFamily) -> socket.socket:
    one = socket.socket(family)
    one.bind(where)
    one.listen()
    return one


def test_what_listens_on_loopback_is_not_reached_from_outside() -> None:
    with (
        listener(("127.0.0.3", 0), socket.AF_INET) as local,
        listener(("0.0.0.0", 0), socket.AF_INET) as open_,
        listener(("::1", 0), socket.AF_INET6) as local6,
    ):
        numbers = [one.getsockname()[1] for one in (local, open_, local6)]
        assert set(probe.taken_ports(numbers)) == set(map(str, numbers))
        assert set(probe.taken_ports(numbers, from_outside=True)) == {str(numbers[1])}
