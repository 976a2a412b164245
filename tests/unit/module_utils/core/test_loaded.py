"""Whether a unit has loaded its files: of files that are written as Ansible writes them, and of records that runs left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import loaded

UNIT = "haproxy.service"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(loaded, "FOLDER", tmp_path / "loaded")
    return tmp_path / "loaded"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "haproxy.cfg"
    written(path, "one")
    return path


def written(path: Path, text: str) -> None:
    """As Ansible writes a file: beside its place, then moved there."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text)
    os.replace(scratch, path)


def due(config: Path, started: int | None) -> bool:
    return loaded.is_due(loaded.read(UNIT), [str(config)], started)


def as_loaded(config: Path) -> None:
    loaded.write(UNIT, [str(config)], loaded.signature([str(config)]))


def test_a_run_that_died_before_the_load_is_made_up_for(config: Path) -> None:
    long_ago = int(config.stat().st_ctime) - 3600
    assert due(config, long_ago)
    as_loaded(config)
    assert not due(config, long_ago)
    assert loaded.unloaded() == []
    written(config, "two")
    assert due(config, long_ago)
    assert loaded.unloaded() == [UNIT]


def test_the_same_content_written_again_is_loaded_again(config: Path) -> None:
    """What ran meanwhile may have been somebody's edit of it, loaded by hand."""
    as_loaded(config)
    written(config, "edited")
    written(config, "one")
    assert due(config, int(config.stat().st_ctime) - 3600)


@pytest.mark.parametrize(("later", "expected"), [(-3600, True), (0, True), (2, False), (None, True)])
def test_a_service_that_was_started_after_its_files_were_written_has_loaded_them(
    config: Path, later: int | None, expected: bool
) -> None:
    started = None if later is None else int(config.stat().st_ctime) + later
    assert due(config, started) is expected


def test_of_a_folder_every_file_counts(tmp_path: Path) -> None:
    folder = tmp_path / "library/ray"
    folder.mkdir(parents=True)
    written(folder / "watch.py", "")
    before = loaded.signature([str(tmp_path / "library")])
    written(folder / "more.py", "")
    after = loaded.signature([str(tmp_path / "library")])
    assert len({before, after, loaded.signature([])}) == 3
    (folder / "more.py").unlink()
    assert loaded.signature([str(tmp_path / "library")]) == before


@pytest.mark.parametrize("text", ["{", "{}", '{"unit": 1}'])
def test_a_record_that_cannot_be_read_is_none(folder: Path, config: Path, text: str) -> None:
    as_loaded(config)
    (folder / f"{UNIT}.json").write_text(text)
    assert loaded.read(UNIT) is None
    assert loaded.unloaded() == []


def test_other_files_than_those_loaded_are_loaded(config: Path, tmp_path: Path) -> None:
    as_loaded(config)
    certificate = tmp_path / "lockstep.pem"
    written(certificate, "")
    assert loaded.is_due(loaded.read(UNIT), [str(config), str(certificate)], None)
