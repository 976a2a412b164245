"""Who may start: quarantine first, then the stamp, and only for exactly what the host runs now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.admission import condition, fingerprint, quarantine, stamps
from ansible_collections.lockstep.vllm.plugins.module_utils.core import records

NOW = {
    "machine": "5f0c9d1e77aa",
    "gpus": "GPU-11 GPU-22",
    "driver": "550.127.05",
    "driver_packages": "550.127.05",
    "fabric_manager": None,
    "kernel": "6.1.0",
    "nccl": "2.27.5",
    "nccl_build_id": "0e5c1ab2",
    "libcuda_build_id": "77aa01fe",
    "torch": "2.13.0",
    "ray": "2.60.0",
    "vllm": "0.32.0",
    "python": "3.11.2",
}
AT = "2026-11-22T00:00:00Z"
HOST = {
    "host": "a1", "replica": "a", "ray_role": "head", "address": "10.0.0.1", "interface": "eth0", "gpus": 8,
    "gpu_model": None, "zone": None, "head": {"host": "a1", "address": "10.0.0.1"}, "peers": {"a1": "10.0.0.1"},
}  # fmt: skip
GATES = [{"gate": "driver", "verdict": "pass", "seconds": 1.0, "cause": ""}]
STAMP = stamps.host_stamp(GATES, "r1", AT, NOW, fingerprint.digest(NOW))
REPLICA_STAMP = stamps.replica_stamp(GATES, "r1", AT, {"a1": fingerprint.digest(NOW), "a2": "00ff"})
QUARANTINE = quarantine.Quarantine(quarantine.QuarantineKind.FAILED, "graph gate failed", "ada@ops", "r1", AT)


@pytest.mark.parametrize("field", fingerprint.FIELDS)
def test_every_field_voids_the_host_stamp(field: str) -> None:
    decision = condition.may_start_ray("a1", None, STAMP, {**NOW, field: "other"})
    assert not decision.allowed
    assert f"{field} {NOW[field] or 'absent'} → other" in decision.reason


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ("GPU-11 GPU-22", "GPU-11 GPU-33", "gpus GPU-22 → GPU-33"),
        ("GPU-11 GPU-22", "GPU-11", "gpus GPU-22 → absent"),
        ("GPU-11 GPU-22", "GPU-11 unknown", "gpus GPU-22 → unknown"),
        ("GPU-1 GPU-2 GPU-3", "GPU-4 GPU-5 GPU-6", "gpus GPU-1 GPU-2 and 1 more → GPU-4 GPU-5 and 1 more"),
        (None, "GPU-1 GPU-2 GPU-3", "gpus absent → GPU-1 GPU-2 and 1 more"),
    ],
)
def test_another_card_under_the_same_installation_voids_both_stamps(before: str | None, now: str, said: str) -> None:
    stamped, present = {**NOW, "gpus": before}, {**NOW, "gpus": now}
    host = stamps.host_stamp(GATES, "r1", AT, stamped, fingerprint.digest(stamped))
    replica = stamps.replica_stamp(GATES, "r1", AT, {"a1": fingerprint.digest(stamped)})
    assert said in condition.may_start_ray("a1", None, host, present).reason
    assert not condition.may_start_engine("a1", None, replica, present).allowed
    assert condition.may_start_ray("a1", None, host, stamped).allowed


def test_another_machine_of_the_same_name_and_versions_has_no_stamp(tmp_path: Path) -> None:
    """A dead host that was replaced, its disk's records carried along: neither its own stamp holds, nor the replica's."""
    identities = []
    for name, identity in (("old", "5c7c1a3c"), ("new", "9d02be11"), ("none", "")):
        (tmp_path / name).write_text(f"{identity}\n")
        identities.append(fingerprint.this_machine(tmp_path / name))
    old, new, none = identities
    assert old != new
    assert none is None
    assert old == fingerprint.this_machine(tmp_path / "old"), "a reboot is no other machine"
    assert "5c7c1a3c" not in str(old)
    before, after = ({**fingerprint.compose({}, {}, "6.1.0", machine)} for machine in (old, new))
    host = stamps.host_stamp(GATES, "r1", AT, before, fingerprint.digest(before))
    replica = stamps.replica_stamp(GATES, "r1", AT, {"a1": fingerprint.digest(before)})
    assert condition.may_start_ray("a1", None, host, before).allowed
    assert "machine" in condition.may_start_ray("a1", None, host, after).reason
    assert not condition.may_start_engine("a1", None, replica, after).allowed
    assert condition.unexpected_hosts(replica["hosts"], {"a1": fingerprint.digest(after)})


@pytest.mark.parametrize(
    ("kind", "isolation", "stamp", "allowed", "fragment"),
    [
        ("host", None, STAMP, True, "valid"),
        ("host", None, None, False, "no host stamp"),
        ("host", QUARANTINE, STAMP, False, "graph gate failed (by ada@ops, run r1)"),
        ("replica", None, REPLICA_STAMP, True, "valid"),
        ("replica", None, None, False, "no replica stamp"),
        ("replica", QUARANTINE, REPLICA_STAMP, False, "quarantine"),
        ("replica", None, {**REPLICA_STAMP, "hosts": {"a1": "dead"}}, False, "void"),
        ("replica", None, {**REPLICA_STAMP, "hosts": {}}, False, "void"),
    ],
)
def test_decisions(
    kind: str, isolation: quarantine.Quarantine | None, stamp: Any, allowed: bool, fragment: str
) -> None:
    may_start: Any = condition.may_start_ray if kind == "host" else condition.may_start_engine
    decision = may_start("a1", isolation, stamp, NOW)
    assert decision.allowed is allowed
    assert fragment in decision.reason


def test_unexpected_hosts() -> None:
    stamped = REPLICA_STAMP["hosts"]
    assert condition.unexpected_hosts(stamped, {"a1": fingerprint.digest(NOW), "a2": "00ff"}) == []
    assert "a2 joined with fingerprint beef" in condition.unexpected_hosts(stamped, {"a2": "beef"})[0]
    assert "does not cover" in condition.unexpected_hosts(stamped, {"c9": "00ff"})[0]


def test_a_damaged_record_admits_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "current", lambda: NOW)
    for name in ("HOST", "HOST_STAMP", "QUARANTINE"):
        monkeypatch.setattr(records, name, tmp_path / f"{name}.json")
    (tmp_path / "HOST.json").write_text(json.dumps(HOST))
    (tmp_path / "HOST_STAMP.json").write_text(json.dumps(STAMP))
    assert condition.decide_here("host").allowed
    for name, text in (
        ("QUARANTINE", '{"reason": "cut off in the mid'),
        ("QUARANTINE", "{}"),
        ("HOST_STAMP", "{}"),
        ("HOST", "{}"),
    ):
        (tmp_path / "QUARANTINE.json").unlink(missing_ok=True)
        (tmp_path / f"{name}.json").write_text(text)
        decision = condition.decide_here("host")
        assert not decision.allowed
        assert "damaged" in decision.reason


def test_usage_is_an_error_that_systemd_sees() -> None:
    assert condition.main(["nonsense"]) == 255
