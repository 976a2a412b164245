"""What gpu_host puts onto a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import host_record, records
from ansible_collections.lockstep.vllm.plugins.module_utils.host import setup as host_setup

SOURCES = {"__init__.py": "", "gates/gate.py": "new\n"}
TABLES = {"xids.json": "[]\n"}


def test_library_is_made_exactly_the_given_one(tmp_path: Path) -> None:
    library, share = tmp_path / "lib", tmp_path / "share"
    library.mkdir()
    (library / "gone.py").write_text("old")
    (library / "gates").mkdir()
    (library / "gates" / "gate.py").write_text("old")
    (library / "gates" / "left.py").write_text("old")

    planned = host_setup.install_library(SOURCES, TABLES, dry=True, library=library, share=share)
    assert (library / "gone.py").exists()
    assert not share.exists()

    changed = host_setup.install_library(SOURCES, TABLES, library=library, share=share)
    assert changed == planned
    assert {Path(path).name for path in changed} == {"__init__.py", "gate.py", "gone.py", "left.py", "xids.json"}
    assert sorted(path.name for path in library.rglob("*.py")) == ["__init__.py", "gate.py"]
    assert (library / "gates" / "gate.py").stat().st_mode & 0o777 == 0o644
    assert host_setup.install_library(SOURCES, TABLES, library=library, share=share) == []


def test_a_changed_mode_is_restored(tmp_path: Path) -> None:
    host_setup.install_library(SOURCES, {}, library=tmp_path, share=tmp_path / "share")
    (tmp_path / "gates" / "gate.py").chmod(0o600)
    assert host_setup.install_library(SOURCES, {}, library=tmp_path, share=tmp_path / "share") == [
        str(tmp_path / "gates" / "gate.py")
    ]


def test_host_record() -> None:
    replica = {"name": "replica_a", "head": "a1", "addresses": {"a1": "10.0.0.11", "a2": "10.0.0.12"}}
    declared = {"interface": "eth0", "gpus": 8, "gpu_model": "H100", "zone": "z1"}
    assert host_setup.host_record("a2", replica, declared) == {
        "host": "a2",
        "replica": "replica_a",
        "ray_role": "worker",
        "address": "10.0.0.12",
        "interface": "eth0",
        "gpus": 8,
        "gpu_model": "H100",
        "zone": "z1",
        "head": {"host": "a1", "address": "10.0.0.11"},
        "peers": {"a1": "10.0.0.11", "a2": "10.0.0.12"},
    }
    assert host_setup.host_record("a1", replica, declared)["ray_role"] == "head"
    assert host_setup.host_record("a1", replica, declared, ["mlx5_0"])["nvswitch_ports"] == ["mlx5_0"]


def test_the_host_record_is_one_that_its_readers_accept() -> None:
    replica: host_setup.Replica = {"name": "a", "head": "a1", "addresses": {"a1": "10.0.0.1", "a2": "10.0.0.2"}}
    declared = {"interface": "eth0", "gpus": 8, "gpu_model": None, "zone": None}
    head, worker = (host_setup.host_record(host, replica, declared) for host in ("a1", "a2"))
    assert host_record.parse(head) == head
    assert (head["ray_role"], worker["ray_role"]) == ("head", "worker")
    assert worker["head"] == {"host": "a1", "address": "10.0.0.1"}
    with pytest.raises(records.RecordError, match="has no peers"):
        host_record.parse({name: value for name, value in head.items() if name != "peers"})
