"""What tests of several folders use. Nothing in tests/unit needs a network."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def promtool() -> str:
    """Path of Prometheus' own checker; it comes over the network once."""
    found = subprocess.run([ROOT / "tools/promtool"], text=True, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"no promtool here, and none could be downloaded: {found.stderr.strip()}")
    return found.stdout.strip()


@pytest.fixture(scope="session")
def grafana_sdk() -> str:
    """Folder of Grafana's own models of a dashboard; they come over the network once."""
    found = subprocess.run([ROOT / "tools/grafana-sdk"], text=True, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"no models of Grafana here, and none could be downloaded: {found.stderr.strip()}")
    return found.stdout.strip()
