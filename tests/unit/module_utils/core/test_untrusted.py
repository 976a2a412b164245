"""Reading below a handle: what is read, how much of it, and what is never opened. tests/security plants it as another user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import untrusted


def test_as_much_as_the_limit_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert untrusted.read_file(tmp_path / "file", 10) == b"0123456789"
    with pytest.raises(untrusted.RefusedError, match="file is larger than 9 bytes"):
        untrusted.read_file(tmp_path / "file", 9)
    assert untrusted.end_of_file(tmp_path / "file", 3) == b"789"
    assert untrusted.end_of_file(tmp_path / "file", 99) == b"0123456789"
    with pytest.raises(FileNotFoundError):
        untrusted.read_file(tmp_path / "none")


def test_files_below_are_found_and_links_are_not(tmp_path: Path) -> None:
    (tmp_path / "top/a/b").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/z", "a/line\nbreak"):
        (tmp_path / "top" / name).write_text("")
    (tmp_path / "top/a/link").symlink_to(tmp_path / "top/x")
    (tmp_path / "top/loop").symlink_to(tmp_path / "top")
    with untrusted.open_folder(tmp_path / "top") as folder:
        assert sorted(found.parts for found in untrusted.files_below(folder)) == [("a", "b", "z"), ("a", "y"), ("x",)]
        assert [found.parts for found in untrusted.files_below(folder, deepest=0)] == [("x",)]
        assert len(list(untrusted.files_below(folder, most=2))) <= 2
        with pytest.raises(OSError, match="loop"):
            untrusted.read_below(folder, ("loop", "x"))
        assert untrusted.read_below(folder, ("a", "b", "z")) == b""
    with pytest.raises(NotADirectoryError), untrusted.open_folder(tmp_path / "top/loop"):
        pass


def test_a_handle_stands_for_its_folder_whatever_becomes_of_the_path(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/x").write_text("ours")
    with untrusted.open_folder(tmp_path / "ours") as folder:
        (tmp_path / "ours").rename(tmp_path / "moved")
        (tmp_path / "ours").mkdir()
        (tmp_path / "ours/x").write_text("another")
        assert untrusted.read_below(folder, ("x",)) == b"ours"


def test_no_handle_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("x" * 10)
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path / "a/x", tmp_path / "a", tmp_path / "none", tmp_path / "none/x"):
        for read in (untrusted.read_file, untrusted.end_of_file):
            try:
                read(path, 5)
            except OSError:
                continue
    with untrusted.open_folder(tmp_path) as folder:
        list(untrusted.files_below(folder))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}),
        ('{"a": [1, null, "é"]}', {"a": [1, None, "é"]}),
        ("[" * 31 + "]" * 31, None),
        (str(2**63 - 1), 2**63 - 1),
    ],
)
def test_modest_json(text: str, value: Any) -> None:
    assert value is None or untrusted.parse_json(text) == value
    untrusted.parse_json(text)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 33 + "]" * 33, "[" * 10**6, str(2**63), "1" + "0" * 5000, "NaN", "[1e999]", '"\\ud800"', '{"\\ud800": 1}'],
)  # fmt: skip
def test_json_that_others_choke_on(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has a text of its own
        untrusted.parse_json(text)


def test_ranks_may_report_what_is_not_finite() -> None:
    assert untrusted.parse_json("[1e999]", finite=False) == [float("inf")]
