"""The README's picture of a report is there, small, and can be made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .scripts import ROOT, script

tool = script("screenshot")


def test_the_readme_shows_a_picture_that_is_small() -> None:
    assert "(docs/report.png)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert tool.PICTURE.stat().st_size <= tool.LARGEST
    assert tool.JOURNAL.is_file()


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not here")
def test_it_can_be_made_again(tmp_path: Path) -> None:
    assert tool.main(tool.JOURNAL, tmp_path / "report.png") == 0
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_browser_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool.shutil, "which", lambda _name: None)
    assert tool.main() == 2
    assert "apt-get install chromium" in capsys.readouterr().err
