"""Reasons of gRPC and of the network, in plain text."""

from __future__ import annotations

import socket

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.ray import gcs


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.89.82.11:6379: Failed to connect to remote "
            "host: Connection refused",
            "Connection refused",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.89.82.11:6379: tcp handshaker shutdown",
            "UNKNOWN: ipv4:10.89.82.11:6379: tcp handshaker shutdown",
        ),
        ("InvalidAuthToken: Authentication token is missing or incorrect", None),
        ("no answer within 2 s", None),
    ],
)
def test_grpc_reason_is_plain(text, plain):
    assert gcs.plain(text) == (plain or text)


def test_token_comes_from_where_it_is_reported_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(gcs, "TOKEN", tmp_path / "etc")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert gcs.token() is None
    (tmp_path / "etc").write_text("from etc\n")
    assert gcs.token() == "from etc"
    (tmp_path / "ray-token").write_text("from systemd\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert gcs.token() == "from systemd"
    (tmp_path / "path").write_text("from the path\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "path"))
    assert gcs.token() == "from the path"


def test_answers():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert gcs.answers("127.0.0.1", port)
    assert not gcs.answers("127.0.0.1", port)


def test_nothing_installed_is_an_answer(tmp_path):
    assert gcs.summary(tmp_path / "current")["head"] == "absent"
