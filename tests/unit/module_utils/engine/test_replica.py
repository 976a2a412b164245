"""The environment that an engine is started with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.config import Config, Proof
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.replica import Replica

HOST = {"address": "10.0.0.11", "interface": "eth0", "head": {"address": "10.0.0.11"},
        "peers": {"a1": "10.0.0.11", "a2": "10.0.0.12"}}  # fmt: skip


@pytest.mark.parametrize(
    ("of_host", "of_engine", "level"),
    [
        ({}, {}, "WARN"),
        ({"NCCL_DEBUG": "INFO"}, {}, "INFO"),
        ({}, {"NCCL_DEBUG": "TRACE"}, "TRACE"),
        ({"NCCL_DEBUG": "INFO"}, {"NCCL_DEBUG": "VERSION"}, "VERSION"),
    ],
    ids=["default", "ray_node_environment", "vllm_server_environment", "both"],
)
def test_nccl_says_why_it_fails_unless_the_operator_says_otherwise(
    of_host: dict[str, str], of_engine: dict[str, str], level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "STATE", tmp_path)
    monkeypatch.setattr(os, "environ", {"PATH": "/bin", "PYTHONPATH": "/x", **of_host})
    config = Config("/m", "tiny", (), Proof("x"), environment=of_engine)
    environment = Replica(config, HOST, {}, Path("vllm"), None).environment()
    assert environment["NCCL_DEBUG"] == level
    assert environment["PATH"] == "/bin"
    assert "PYTHONPATH" not in environment
