"""promtool: this machine's own, or the one in Debian's package, unpacked into .cache and not installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[1] / ".cache" / "promtool"


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> str:
    unpacked = CACHE / "usr" / "bin" / "promtool"
    found = shutil.which("promtool") or (str(unpacked) if unpacked.exists() else None)
    if found:
        return found
    if not shutil.which("apt-get"):
        pytest.skip("neither promtool nor apt-get is here")
    folder = tmp_path_factory.mktemp("promtool")
    subprocess.run(["apt-get", "download", "prometheus"], cwd=folder, check=True, capture_output=True)
    (package,) = folder.glob("prometheus_*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(package), str(CACHE)], check=True)
    return str(unpacked)
