"""Records that a crash cannot tear, and damage that is never taken for absence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    assert records.read(path) is None
    assert records.write(path, {"b": 1, "a": None}, mode=0o600)
    assert records.read(path) == {"b": 1, "a": None}
    assert path.stat().st_mode & 0o777 == 0o600
    assert not records.write(path, {"a": None, "b": 1})
    assert records.remove(path)
    assert not records.remove(path)


@pytest.mark.parametrize(
    ("text", "reason"), [("{torn", "is not JSON"), ("[1]", "expected an object"), ("\udcff", "read")]
)
def test_a_damaged_record_is_an_error(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(records.RecordError, match=reason) as raised:
        records.read(path)
    assert str(path) in str(raised.value)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is done to the disk from now on, in order (``tmp_path`` comes first: pytest cleans up for it)."""
    done: list[tuple[str, str]] = []
    fsync, replace, unlink = os.fsync, os.replace, Path.unlink

    def synced(handle: int) -> None:
        done.append(("fsync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        fsync(handle)

    def replaced(source: str, target: Path) -> None:
        done.append(("replace", target.name))
        replace(source, target)

    def unlinked(path: Path, **more: Any) -> None:
        done.append(("unlink", path.name))
        unlink(path, **more)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(Path, "unlink", unlinked)
    return done


def test_a_record_is_on_the_disk_before_it_replaces_the_old_one(disk: list[tuple[str, str]], tmp_path: Path) -> None:
    records.write(tmp_path / "record.json", {"a": 1})
    (first, scratch), *rest = disk
    assert first == "fsync"
    assert scratch.startswith(".record.json.")
    assert rest == [("replace", "record.json"), ("fsync", tmp_path.name)]


def test_a_removal_is_on_the_disk_too(disk: list[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{}")
    records.remove(tmp_path / "record.json")
    assert disk == [("unlink", "record.json"), ("fsync", tmp_path.name)]


def test_a_write_that_fails_leaves_the_old_record_and_no_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    records.write(path, {"a": 1})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        records.write(path, {"a": 2})
    assert os.listdir(tmp_path) == ["record.json"]
    assert records.read(path) == {"a": 1}
