"""What hosts without internet are given, made of the real index and the real archive: large, so only in `make test-long`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.lib import archive, errors

ROOT = Path(__file__).parents[2]
UV = ROOT / ".venv/bin/uv"
pytestmark = pytest.mark.long


def test_wheelhouse_of_the_cpu_lock_is_complete(tmp_path: Path) -> None:
    """Every wheel is installed with no index, from the folder alone; and so is the controller's environment."""
    made = tmp_path / "house"
    command = [sys.executable, ROOT / "tools/wheelhouse", made, "--lock", "cpu", "--controller", "3.12"]
    subprocess.run(command, check=True, timeout=1200)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=made, check=True)
    offline = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    for lock, python in (("locks/cpu.txt", "3.11"), ("controller.txt", "3.12")):
        done = subprocess.run(
            [UV, "pip", "install", "--offline", "--no-config", "--no-index", "--find-links", made, "--require-hashes",
             "--no-deps", "--only-binary", ":all:", "--python-version", python, "--python-platform", "x86_64-manylinux_2_36",
             "--python", sys.executable, "--target", tmp_path / python, "--cache-dir", tmp_path / "cache",
             "--requirement", made / lock],
            env=offline, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "3.11/vllm").is_dir()
    assert (tmp_path / "3.11/torch").is_dir()
    assert (tmp_path / "3.12/ansible").is_dir()


@pytest.mark.skipif(not Path(archive.KEYRING).exists(), reason="this machine has no keyring of Debian's archive")
def test_mirror_of_debians_own_driver_is_complete(tmp_path: Path) -> None:
    """Every file of the list is fetched, and has its checksum."""
    sources = tmp_path / "sources.list"
    try:
        described = archive.sources("bookworm", ("main", "contrib", "non-free", "non-free-firmware"))
    except errors.TestbedError as error:
        pytest.skip(str(error))
    sources.write_text("\n".join([*described, ""]))
    listed = tmp_path / "list"
    given = ["--driver", "535.309.01", "--source", "debian", "--flavor", "proprietary", "--distribution", "debian:12"]
    subprocess.run(
        [sys.executable, ROOT / "tools/mirror-list", listed, *given, "--sources", sources], check=True, timeout=300
    )
    fetch = ["wget", "--no-verbose", "--force-directories", f"--input-file={listed}/urls.txt"]
    subprocess.run(fetch, cwd=tmp_path, check=True, timeout=1200)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", listed / "SHA256SUMS"], cwd=tmp_path, check=True)
    names = {line.split("\t")[0] for line in (listed / "packages.tsv").read_text().splitlines()}
    assert {"nvidia-kernel-dkms", "dkms", "linux-headers-amd64", "haproxy", "nftables", "g++"} <= names
