"""What systemctl shows, and what is reported to systemd."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import systemd
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult


def test_properties_by_unit() -> None:
    text = "Id=a.service\nLoadState=loaded\nExecStart={ path=/bin/true ; argv[]=/bin/true x=y }\n\nId=b.service\nLoadState=not-found\n"
    shown = systemd.parse_show(text)
    assert {unit: properties["LoadState"] for unit, properties in shown.items()} == {
        "a.service": "loaded",
        "b.service": "not-found",
    }
    assert shown["a.service"]["ExecStart"] == "{ path=/bin/true ; argv[]=/bin/true x=y }"


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (CommandResult(1, stderr="Failed to connect to bus"), "Failed to connect to bus"),
        (CommandResult(None, timed_out=True), "no answer within 10 s"),
        (CommandResult(3), "exit status 3"),
    ],
)
def test_a_systemctl_that_fails_is_an_error(result: CommandResult, reason: str) -> None:
    with pytest.raises(systemd.SystemctlError, match=reason):
        systemd.show(["a.service"], ["LoadState"], run=lambda _argv, _deadline: result)


def test_notify_sends_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(address))
        assert systemd.notify(ready=True, status="serves\nrequests")
        assert server.recv(256) == b"READY=1\nSTATUS=serves requests"


def test_notify_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify(ready=True)
