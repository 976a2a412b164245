from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import journal


def test_what_is_written_is_read(tmp_path: Path) -> None:
    book = journal.Journal(tmp_path / "runs", "r1")
    events = [{"event": "note", "text": "Zürich ↔ Genève"}, {"event": "note", "path": "x"}]
    for event in events:
        book.write(event)
    book.close()
    assert journal.read(book.path) == events


def test_values_that_json_does_not_know_are_text(tmp_path: Path) -> None:
    book = journal.Journal(tmp_path, "r1")
    book.write({"event": "note", "path": Path("/x"), "odd": "\udcff"})
    book.close()
    assert journal.read(book.path)[0]["path"] == "/x"


def test_every_event_is_synced_before_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    book = journal.Journal(tmp_path, "r1")
    monkeypatch.setattr(os, "fsync", lambda _handle: synced.append(book.path.read_text()))
    book.write({"event": "one"})
    book.write({"event": "two"})
    assert synced == ['{"event": "one"}\n', '{"event": "one"}\n{"event": "two"}\n']


def test_a_torn_last_line_is_left_out_and_a_torn_other_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event": "one"}\n{"event": "tw')
    assert journal.read(path) == [{"event": "one"}]
    path.write_text('{"event": "one"}\n{"ev\n{"event": "three"}\n')
    with pytest.raises(ValueError, match="line 2 is not an event"):
        journal.read(path)


def test_a_journal_goes_on_where_it_was(tmp_path: Path) -> None:
    for text in ("one", "two"):
        book = journal.Journal(tmp_path, "r1")
        book.write({"event": text})
        book.close()
    assert [event["event"] for event in journal.read(book.path)] == ["one", "two"]


def test_unreported(tmp_path: Path) -> None:
    for n in range(8):
        journal.Journal(tmp_path, f"r{n}").close()
    (tmp_path / "r6" / journal.REPORT).write_text("")
    assert [folder.name for folder in journal.unreported(tmp_path, but="r7")] == ["r5", "r4", "r3", "r2", "r1"]


def test_names_of_runs_sort_by_time() -> None:
    early = journal.new_run(datetime.datetime(2026, 11, 22, 0, 30, tzinfo=datetime.UTC))
    assert early.startswith("20261122T003000Z-")
    assert early < journal.new_run(datetime.datetime(2026, 11, 22, 0, 30, 1, tzinfo=datetime.UTC))


def test_stamp() -> None:
    assert journal.stamp(1795309800.0625) == "2026-11-22T01:10:00.062Z"
