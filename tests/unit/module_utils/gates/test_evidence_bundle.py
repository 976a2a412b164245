from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import state as engine_state
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import evidence_bundle


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records, "EVIDENCE", tmp_path / "evidence")
    monkeypatch.setattr(engine_state, "EVIDENCE", tmp_path / "engine")
    monkeypatch.setattr(engine_state, "LOG", tmp_path / "engine.log")
    return tmp_path


def keep(path: Path, content: bytes, at: float = 1000.0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (at, at))
    return str(path)


def unpacked(params: dict[str, object]) -> dict[str, bytes]:
    return {path: evidence_bundle.unpack(packed) for path, packed in evidence_bundle.collect(params)["files"].items()}


def test_the_run_s_own_evidence_and_what_the_engine_left_since(host: Path) -> None:
    mine = keep(host / "evidence" / "r1" / "graph" / "stacks.txt", b"stacks", at=10)
    keep(host / "evidence" / "r0" / "graph" / "stacks.txt", b"old")
    log = keep(host / "engine.log", b"log", at=500)
    keep(host / "engine" / "x" / "stacks.txt", b"earlier", at=499)
    assert unpacked({"run": "r1", "since": 500}) == {mine: b"stacks", log: b"log"}


def test_nothing_there(host: Path) -> None:
    assert evidence_bundle.collect({"run": "r1"}) == {"files": {}, "left_out": []}


def test_of_a_long_file_the_end_is_kept(host: Path) -> None:
    path = keep(host / "evidence" / "r1" / "long", b"a" * evidence_bundle.FILE_LIMIT + b"the end")
    kept = unpacked({"run": "r1"})[path]
    assert len(kept) == evidence_bundle.FILE_LIMIT
    assert kept.endswith(b"the end")


def test_of_many_files_the_newest_are_kept(host: Path) -> None:
    most = evidence_bundle.HOST_LIMIT // evidence_bundle.FILE_LIMIT
    paths = [
        keep(host / "evidence" / "r1" / f"{n:03}", os.urandom(evidence_bundle.FILE_LIMIT), at=n)
        for n in range(most + 2)
    ]
    found = evidence_bundle.collect({"run": "r1"})
    assert sorted(found["files"]) == paths[2:]
    assert sorted(found["left_out"]) == paths[:2]


@pytest.mark.parametrize("run", ["", ".", "..", "../r1", "a/b"])
def test_a_run_s_name_is_no_path(host: Path, run: str) -> None:
    keep(host / "evidence" / "r1" / "x", b"x")
    keep(host / "r1" / "x", b"x")
    assert unpacked({"run": run, "since": 2000}) == {}


def test_links_are_not_followed(host: Path) -> None:
    keep(host / "secret", b"s3cr3t")
    (host / "evidence" / "r1").mkdir(parents=True)
    (host / "evidence" / "r1" / "link").symlink_to(host / "secret")
    assert unpacked({"run": "r1"}) == {}
