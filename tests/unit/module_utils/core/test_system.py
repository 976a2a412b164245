"""os-release, as distributions write it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.system import os_release, uptime


def test_quotes_comments_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text("# a comment=no field\n\nID=ubuntu\nID_LIKE=\"debian\"\nVERSION_CODENAME='jammy'\n")
    assert os_release(path) == {"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_CODENAME": "jammy"}


@pytest.mark.parametrize(
    ("clock", "booted", "seconds"),
    [(1795000060.5, "1795000000", 60.5), (1795000060.5, None, None), (None, "1795000000", None), (1.0, "soon", None)],
)
def test_how_long_a_host_has_been_up(clock: float | None, booted: str | None, seconds: float | None) -> None:
    assert uptime(clock, booted) == seconds


def test_this_machine_as_the_standard_library_reads_it() -> None:
    expected = platform.freedesktop_os_release()
    fields = os_release()
    assert {name: expected[name] for name in fields} == fields
