"""What NCCL is made to write down, and how a gate reads it, whatever the serving environment asks of NCCL."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import launcher


def environment(monkeypatch: pytest.MonkeyPatch, inherited: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    for name, value in inherited.items():
        monkeypatch.setenv(name, value)
    launch = types.SimpleNamespace(environment=given, library="/opt/lockstep/lib")
    return launcher._environment(types.SimpleNamespace(interface="eth0"), Path("/scratch"), launch)


def test_nccl_says_what_it_uses_whatever_the_engine_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = {
        "NCCL_DEBUG": "WARN",
        "NCCL_DEBUG_FILE": "/elsewhere",
        "NCCL_DEBUG_SUBSYS": "COLL",
        "NCCL_IB_HCA": "mlx5_0",
    }
    seen = environment(monkeypatch, inherited, {})
    assert (seen["NCCL_DEBUG"], seen["NCCL_DEBUG_FILE"]) == ("INFO", "/scratch/nccl.%h.%p.log")
    assert "NCCL_DEBUG_SUBSYS" not in seen
    assert seen["NCCL_IB_HCA"] == "mlx5_0"


def test_who_runs_the_gate_by_hand_may_ask_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment(monkeypatch, {}, {"NCCL_DEBUG": "TRACE"})["NCCL_DEBUG"] == "TRACE"


def test_logs_of_the_ranks_are_read_and_nothing_else_that_lies_there() -> None:
    scratch = launcher.scratch_folder(None)
    try:
        (scratch.path / "nccl.a1.7.log").write_text("a1:7:7 [0] NCCL INFO Using network Socket\n")
        (scratch.path / "other.log").write_text("a1:7:7 [0] NCCL INFO Using network IB\n")
        (scratch.path / "nccl.a1.8.log").symlink_to("/etc/passwd")
        assert list(launcher._logs(scratch)) == [("nccl.a1.7.log", "a1:7:7 [0] NCCL INFO Using network Socket\n")]
    finally:
        scratch.remove()
