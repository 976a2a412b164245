"""What a host reports to its peers, from `systemctl show` to the peer's understanding of it."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import systemd
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import peer_status
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.codes import StartCode
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.peer_status import HostStatus, RayStatus, UnitStatus
from tests.machine import PATIENCE, loopback

SHOWN = Path(__file__).parents[2] / "fixtures" / "systemctl" / "252"


@pytest.mark.parametrize(
    ("captured", "unit"),
    [
        ("running", ("active", "success", True)),
        ("refused", ("inactive", "exec-condition", True)),
        ("absent", ("inactive", "success", False)),
        ("restarting", ("activating", "exit-code", True)),
    ],
)
def test_unit(captured, unit):
    shown = f"Id={peer_status.UNIT}\n" + (SHOWN / f"show-ray-{captured}.txt").read_text()
    assert peer_status.parse_unit(systemd.parse_show(shown)[peer_status.UNIT]) == UnitStatus(*unit)


@pytest.mark.parametrize(
    ("remote", "allowed"),
    [("10.0.0.12", True), ("10.0.0.11", True), ("127.0.0.1", True), ("10.0.0.99", False), ("fd00::1", False)],
)
def test_only_hosts_of_the_replica_get_an_answer(remote, allowed):
    assert peer_status.may_ask(remote, {"peers": {"a1": "10.0.0.11", "a2": "10.0.0.12"}}) is allowed


@pytest.fixture
def answering():
    """A peer on loopback that sends one thing and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def start(answer: bytes) -> int:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    listener.close()


def test_asked_and_answered(answering):
    unit, ray = (
        UnitStatus("failed", "exit-code"),
        RayStatus(StartCode.TOKEN_REFUSED, "the head refuses its token", "now"),
    )
    sent = HostStatus("a2", unit=unit, driver="550.127.05", quarantine={"reason": "DIMM"}, ray=ray)
    port = answering(json.dumps(dataclasses.asdict(sent)).encode())
    assert peer_status.ask("a2", "127.0.0.1", port, timeout=PATIENCE) == sent


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"[]", b"7"])
def test_invalid_reply(answering, answer):
    result = peer_status.ask("a2", "127.0.0.1", answering(answer), timeout=PATIENCE)
    assert (result.answered, result.error) == (False, "invalid status reply")


def test_newer_host_may_say_more(answering):
    sent = b'{"host": "a2", "driver": "595.58.03", "mood": "sunny", "unit": {"mood": 1}, "ray": {"code": "new"}}'
    port = answering(sent)
    assert peer_status.ask("a2", "127.0.0.1", port, timeout=PATIENCE) == HostStatus(
        "a2", driver="595.58.03", ray=RayStatus("new")
    )


def test_nobody_listens():
    with socket.create_server((loopback(), 0)) as listener:
        address, port = listener.getsockname()
    result = peer_status.ask("a2", address, port, timeout=PATIENCE)
    assert (result.answered, result.error) == (False, "connection refused")


def test_silence_ends_at_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts in the backlog, never speaks
        result = peer_status.ask("a2", "127.0.0.1", listener.getsockname()[1], timeout=0.2)
    assert (result.answered, result.error) == (False, "no answer")
