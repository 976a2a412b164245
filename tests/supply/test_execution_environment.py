"""What an execution environment is built of, read by ansible-builder itself."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from tests.supply.conftest import ROOT

BUILDER = [ROOT / ".venv/bin/uv", "tool", "run", "--quiet", "--from", "ansible-builder==3.2.0", "ansible-builder"]


def test_ansible_builder_finds_what_the_collection_needs() -> None:
    """``collections`` is the collection as it is installed, with a link for each of its folders."""
    brought = subprocess.run([*BUILDER, "--version"], text=True, capture_output=True, timeout=120, check=False)
    if brought.returncode:
        pytest.skip(f"no ansible-builder here, and none could be downloaded: {brought.stderr.strip()}")
    done = subprocess.run(
        [*BUILDER, "introspect", ROOT / "collections"], text=True, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    of_ours = "  # from collection lockstep.vllm"
    assert set(found["python"]) == {f"jinja2>=3.1{of_ours}", f"uv>=0.13{of_ours}"}
    assert f"openssh-client [platform:dpkg]{of_ours}" in found["system"]
