"""Who may put a host into quarantine, and who may lift it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.lockstep.vllm.plugins.module_utils.core import host_record, records
from ansible_collections.lockstep.vllm.plugins.modules import quarantine

BY_RUN = {"kind": "changing", "reason": "driver change", "owner": "ada@ops", "run": "r1"}
BY_OPERATOR = {"kind": "operator", "reason": "DIMM swap", "owner": "bob@ops"}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "quarantine.json"
    monkeypatch.setattr(records, "QUARANTINE", path)
    return path


def call(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        quarantine.main()
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def test_quarantine_is_idempotent(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = call(capsys, **BY_RUN), call(capsys, **BY_RUN)
    assert (first["changed"], again["changed"]) == (True, False)
    assert first["quarantine"] == again["quarantine"] == records.read(record)
    assert first["quarantine"] == {**BY_RUN, "at": first["quarantine"]["at"]}


def test_check_mode_writes_nothing(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, _ansible_check_mode=True, **BY_RUN)["changed"]
    assert not record.exists()


def test_a_run_leaves_an_operator_s_quarantine(
    record: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_record, "stored", lambda: {"host": "a1"})
    call(capsys, **BY_OPERATOR)
    result = call(capsys, **BY_RUN)
    assert (result["changed"], result["quarantine"]["reason"]) == (False, "DIMM swap")
    refused = call(capsys, state="absent")
    assert refused["failed"]
    assert '"kinds": ["operator"]' in refused["msg"]
    assert refused["next"].startswith("ansible a1 -m lockstep.vllm.quarantine")
    assert call(capsys, state="absent", kinds=["operator"]) | {"invocation": None} == {
        "changed": True, "quarantine": None, "invocation": None,
    }  # fmt: skip
    assert not record.exists()


def test_an_operator_s_quarantine_replaces_a_run_s(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, **BY_RUN)
    assert call(capsys, **BY_OPERATOR)["quarantine"]["kind"] == "operator"


@pytest.mark.parametrize("text", ["{torn", '{"reason": "x", "kind": "other"}', '{"kind": "failed"}'])
def test_no_run_lifts_a_damaged_record(text: str, record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record.write_text(text)
    refused = call(capsys, state="absent")
    assert refused["failed"]
    assert refused["quarantine"]["kind"] == "damaged"
    assert refused["msg"].endswith(f"Next: rm {record}")
    assert record.exists()
