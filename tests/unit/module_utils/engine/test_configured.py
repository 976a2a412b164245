"""The engine that a host is configured to run, from the files that the role writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import configured

ENGINE: dict[str, Any] = {
    "model": "/srv/models/tiny",
    "served_model_name": "tiny",
    "layouts": [{"tensor_parallel_size": 1, "pipeline_parallel_size": 1}],
    "ladder": ["none", "full"],
    "port": 8100,
    "ready_port": 8101,
    "proof": {"prompt": "The cluster says:", "answer": "lockstep holds", "max_tokens": 8, "deadline": 30},
    "deadlines": {"wait": 100, "start": 20, "rung": 10, "drain": 5},
}
HOST = {
    "host": "a1",
    "replica": "replica_a",
    "ray_role": "head",
    "address": "10.0.0.11",
    "interface": "eth0",
    "gpus": 1,
    "gpu_model": None,
    "zone": None,
    "head": {"host": "a1", "address": "10.0.0.11"},
    "peers": {"a1": "10.0.0.11"},
}


@pytest.fixture(autouse=True)
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records, "ENGINE_CONFIG", tmp_path / "engine.json")
    monkeypatch.setattr(records, "HOST", tmp_path / "host.json")
    monkeypatch.setattr(configured, "API_KEY", tmp_path / "vllm-api-key")
    (tmp_path / "engine.json").write_text(json.dumps(ENGINE))
    (tmp_path / "host.json").write_text(json.dumps(HOST))
    return tmp_path


def test_the_target_is_what_the_host_runs(etc: Path) -> None:
    (etc / "vllm-api-key").write_text("sesame\n")
    target = configured.target()
    assert vars(target) == {
        "url": "http://10.0.0.11:8100",
        "ready_url": "http://10.0.0.11:8101",
        "model": "tiny",
        "prompt": "The cluster says:",
        "expected": "lockstep holds",
        "api_key": "sesame",
        "max_tokens": 8,
        "deadline": 30,
    }
    assert "sesame" not in repr(target)


def test_without_a_key() -> None:
    assert configured.target().api_key is None


def test_a_host_that_runs_no_engine_is_named(etc: Path) -> None:
    (etc / "engine.json").unlink()
    with pytest.raises(records.RecordError, match=r"does not exist.*Next: ansible-playbook site\.yml"):
        configured.target()


def test_the_deadline_is_that_of_the_role_s_default(etc: Path) -> None:
    """wait + (start + proof) for each rung and once more, as vllm_server_serving_deadline has it."""
    assert configured.serving_deadline() == 100 + (20 + 30) * 3
    (etc / "engine.json").unlink()
    assert configured.serving_deadline() is None


def test_a_damaged_configuration_is_named(etc: Path) -> None:
    (etc / "engine.json").write_text("{}")
    with pytest.raises(records.RecordError, match=r"engine\.json"):
        configured.target()
