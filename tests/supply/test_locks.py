"""The serving locks can be installed: every distribution for which they are has a wheel for its Python."""

from __future__ import annotations

import importlib.machinery
import importlib.util
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


@pytest.mark.parametrize("python", lock.declared(ROOT / "pyproject.toml")["cuda"].pythons)
def test_cuda_lock_has_wheels_for(python: str, tmp_path: Path) -> None:
    """Asks the index, downloads no wheel: glibc 2.35 is the oldest, of Ubuntu 22.04."""
    done = subprocess.run(
        [ROOT / ".venv/bin/uv", "pip", "install", "--dry-run", "--require-hashes", "--no-deps", "--only-binary", ":all:",
         "--python-version", python, "--python-platform", "x86_64-manylinux_2_35", "--target", tmp_path,
         "--python", sys.executable, "--requirement", ROOT / "roles/serving_runtime/files/locks/cuda.txt"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pinned = lock.pins((ROOT / "roles/serving_runtime/files/locks/cuda.txt").read_text())
    assert f" + vllm=={pinned['vllm']}" in done.stderr
