"""Who may start: quarantine first, then the stamp, and only for exactly what the host runs now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.admission import condition, fingerprint
from ansible_collections.lockstep.vllm.plugins.module_utils.core import records

NOW = {
    "driver": "550.127.05",
    "driver_packages": "550.127.05",
    "fabric_manager": None,
    "kernel": "6.1.0",
    "nccl": "2.27.5",
    "torch": "2.13.0",
    "ray": "2.60.0",
    "vllm": "0.32.0",
    "python": "3.11.2",
}
STAMP = {"at": "2026-11-22T00:00:00Z", "fingerprint": NOW, "digest": fingerprint.digest(NOW)}
REPLICA_STAMP = {"at": "2026-11-22T00:00:00Z", "hosts": {"a1": fingerprint.digest(NOW), "a2": "00ff"}}
QUARANTINE = {"at": "2026-11-22T00:00:00Z", "reason": "graph gate failed", "owner": "ada@ops", "run": "r1"}


@pytest.mark.parametrize("field", fingerprint.FIELDS)
def test_every_field_voids_the_host_stamp(field: str) -> None:
    decision = condition.may_start("host", "a1", None, STAMP, {**NOW, field: "other"})
    assert not decision.allowed
    assert f"{field} {NOW[field] or 'absent'} → other" in decision.reason


@pytest.mark.parametrize(
    ("kind", "quarantine", "stamp", "allowed", "word"),
    [
        ("host", None, STAMP, True, "valid"),
        ("host", None, None, False, "no host stamp"),
        ("host", QUARANTINE, STAMP, False, "graph gate failed (by ada@ops, run r1)"),
        ("replica", None, REPLICA_STAMP, True, "valid"),
        ("replica", None, None, False, "no replica stamp"),
        ("replica", QUARANTINE, REPLICA_STAMP, False, "quarantine"),
        ("replica", None, {"at": "x", "hosts": {"a1": "dead"}}, False, "void"),
        ("replica", None, {"at": "x", "hosts": {}}, False, "void"),
    ],
)
def test_decisions(kind: str, quarantine: dict | None, stamp: dict | None, allowed: bool, word: str) -> None:
    decision = condition.may_start(kind, "a1", quarantine, stamp, NOW)
    assert decision.allowed is allowed
    assert word in decision.reason


def test_strangers() -> None:
    assert condition.strangers(REPLICA_STAMP, {"a1": fingerprint.digest(NOW), "a2": "00ff"}) == []
    assert "a2 joined with fingerprint beef" in condition.strangers(REPLICA_STAMP, {"a2": "beef"})[0]
    assert "does not cover" in condition.strangers(REPLICA_STAMP, {"c9": "00ff"})[0]


def test_a_damaged_record_admits_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "current", lambda: NOW)
    for name in ("HOST", "HOST_STAMP", "QUARANTINE"):
        monkeypatch.setattr(records, name, tmp_path / f"{name}.json")
    (tmp_path / "HOST.json").write_text(json.dumps({"host": "a1"}))
    (tmp_path / "HOST_STAMP.json").write_text(json.dumps(STAMP))
    assert condition.decide_here("host").allowed
    (tmp_path / "QUARANTINE.json").write_text('{"reason": "cut off in the mid')
    decision = condition.decide_here("host")
    assert not decision.allowed
    assert "damaged" in decision.reason


def test_usage_is_an_error_that_systemd_sees() -> None:
    assert condition.main(["nonsense"]) == 255
