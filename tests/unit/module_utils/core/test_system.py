"""os-release, as distributions write it."""

from __future__ import annotations

import platform
from pathlib import Path

from ansible_collections.lockstep.vllm.plugins.module_utils.core.system import os_release


def test_quotes_comments_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text("# a comment=no field\n\nID=ubuntu\nID_LIKE=\"debian\"\nVERSION_CODENAME='jammy'\n")
    assert os_release(path) == {"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_CODENAME": "jammy"}


def test_this_machine_as_the_standard_library_reads_it() -> None:
    expected = platform.freedesktop_os_release()
    fields = os_release()
    assert {name: expected[name] for name in fields} == fields
