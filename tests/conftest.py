"""What tests of several folders use. Nothing in tests/unit needs a network."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _brought(tool: str) -> str:
    found = subprocess.run([ROOT / "tools" / tool], text=True, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"no {tool} here, and none could be downloaded: {found.stderr.strip()}")
    return found.stdout.strip()


@pytest.fixture(scope="session")
def promtool() -> str:
    """Path of Prometheus' own checker; it comes over the network once."""
    return _brought("promtool")


@pytest.fixture(scope="session")
def amtool() -> str:
    """The same of Alertmanager."""
    return _brought("amtool")


@pytest.fixture(scope="session")
def grafana_sdk() -> str:
    """Folder of Grafana's own models of a dashboard."""
    return _brought("grafana-sdk")
