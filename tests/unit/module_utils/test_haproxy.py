"""HAProxy's runtime socket, against its captured answers and a socket that answers with them."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils import haproxy
from tests.machine import PATIENCE

FIXTURES = Path(__file__).parents[1] / "fixtures" / "haproxy" / "2.6.12"


def captured(name: str) -> str:
    return (FIXTURES / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("moment", "status", "up", "draining"),
    [("up", "UP", True, False), ("drain", "DRAIN", False, True), ("drain_down", "DOWN", False, True)],
)
def test_state_of_a_replica_in_haproxy(moment: str, status: str, up: bool, draining: bool) -> None:
    server = haproxy.parse_stat(captured(f"stat_{moment}.csv"))["replica_a"]
    assert (server.status, server.up, server.sessions) == (status, up, 0)
    assert ("replica_a" in haproxy.parse_draining(captured(f"state_{moment}.txt"))) == draining


def test_only_the_backend_s_servers_are_replicas() -> None:
    assert list(haproxy.parse_stat(captured("stat_up.csv"))) == ["replica_a"]
    assert haproxy.parse_stat(captured("stat_up.csv"), backend="other") == {}


def test_what_haproxy_counted_of_a_replica() -> None:
    assert haproxy.parse_counts(captured("stat_up.csv"), "replica_a") == {"requests": 3, "errors": 0}
    with pytest.raises(haproxy.RouterError, match="no replica 'replica_z'"):
        haproxy.parse_counts(captured("stat_up.csv"), "replica_z")


@pytest.mark.parametrize(
    ("before", "now", "bad"),
    [
        pytest.param((1000, 10), (1100, 11), False, id="as before"),
        pytest.param((1000, 0), (1100, 2), False, id="two errors are no rate"),
        pytest.param((1000, 0), (1100, 3), True, id="three in a hundred"),
        pytest.param((1000, 0), (1300, 3), False, id="three in three hundred"),
        pytest.param((1000, 100), (1100, 110), False, id="as bad as ever"),
        pytest.param((0, 0), (0, 0), False, id="no request"),
        pytest.param((0, 0), (0, 5), True, id="errors without a request that began"),
        pytest.param((1000, 10), (50, 5), True, id="HAProxy was restarted meanwhile"),
    ],
)
def test_errors_that_became_more_frequent(before: tuple[int, int], now: tuple[int, int], bad: bool) -> None:
    keys = ("requests", "errors")
    summary, worse = haproxy.worse(dict(zip(keys, before, strict=True)), dict(zip(keys, now, strict=True)), 0.02)
    assert worse is bad
    assert f"before {before[1]} in {before[0]}" in summary


def test_what_is_no_table_is_reported() -> None:
    with pytest.raises(haproxy.RouterError, match="Permission denied"):
        haproxy.parse_stat("Permission denied\n")


def test_the_state_file_keeps_wishes_and_forgets_health() -> None:
    kept = haproxy.keeping_admin_state(captured("state_drain_down.txt"))
    version, header, line = kept.splitlines()
    named = dict(zip(header[2:].split(" "), line.split(" "), strict=True))
    assert version == "1"
    assert (named["srv_name"], named["srv_admin_state"], named["srv_op_state"]) == ("replica_a", "8", "2")
    assert haproxy.parse_draining(kept) == {"replica_a"}
    assert haproxy.parse_draining(haproxy.keeping_admin_state(captured("state_up.txt"))) == set()


class FakeSocket:
    """A runtime socket that answers from the captured answers and changes its mind when a test makes it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "admin.sock"
        self.asked: list[str] = []
        self.moment = "up"
        self.declines = ""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            line, _ = self._listener.accept()
            with line:
                command = line.recv(4096).decode().strip()
                self.asked.append(command)
                line.sendall(self._answer(command).encode())

    def _answer(self, command: str) -> str:
        if command == "show stat":
            return captured(f"stat_{self.moment}.csv")
        if command == "show servers state replicas":
            return captured(f"state_{self.moment}.txt")
        if not self.declines:
            self.moment = command.rpartition(" ")[2].replace("ready", "up")
        return self.declines + "\n"


@pytest.fixture
def fake(tmp_path: Path) -> FakeSocket:
    return FakeSocket(tmp_path)


def test_a_drain_is_asked_for_and_kept(fake: FakeSocket, tmp_path: Path) -> None:
    state = tmp_path / "state"
    router = haproxy.Router(fake.path, state)
    router.set("replica_a", "drain")
    assert "set server replicas/replica_a state drain" in fake.asked
    assert haproxy.parse_draining(state.read_text(encoding="utf-8")) == {"replica_a"}
    assert router.server("replica_a").draining
    router.set("replica_a", "ready")
    assert haproxy.parse_draining(state.read_text(encoding="utf-8")) == set()
    assert router.wait_up("replica_a", PATIENCE).up


def test_waits_end_at_their_deadline(fake: FakeSocket, tmp_path: Path) -> None:
    fake.moment = "drain_down"
    assert not haproxy.Router(fake.path, tmp_path / "state").wait_up("replica_a", 0.2, pause=0.05).up


def test_what_haproxy_declines_is_reported_and_not_kept(fake: FakeSocket, tmp_path: Path) -> None:
    fake.declines = "No such server."
    router = haproxy.Router(fake.path, tmp_path / "state")
    with pytest.raises(haproxy.RouterError, match=r"refuses state drain of replica_a: No such server"):
        router.set("replica_a", "drain")
    with pytest.raises(haproxy.RouterError, match="knows no replica 'replica_z'; it knows replica_a"):
        router.server("replica_z")
    assert not (tmp_path / "state").exists()


def test_nobody_behind_the_socket(tmp_path: Path) -> None:
    with pytest.raises(haproxy.RouterError, match="does not answer at"):
        haproxy.Router(tmp_path / "none").servers()
