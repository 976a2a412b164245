"""What tests of several folders use: programs of others, brought over the network once. Nothing in tests/unit needs one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _brought(*command: str) -> str:
    found = subprocess.run([ROOT / "tools" / command[0], *command[1:]], text=True, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"no {command[-1]} here, and none could be downloaded: {found.stderr.strip()}")
    return found.stdout.strip()


@pytest.fixture(scope="session")
def promtool() -> str:
    """Path of Prometheus' own checker; it comes over the network once."""
    return _brought("debian-program", "prometheus", "promtool")


@pytest.fixture(scope="session")
def amtool() -> str:
    """The same of Alertmanager."""
    return _brought("debian-program", "prometheus-alertmanager", "amtool")


@pytest.fixture(scope="session")
def prometheus() -> str:
    """Path of the server."""
    return _brought("debian-program", "prometheus", "prometheus")


@pytest.fixture(scope="session")
def alertmanager() -> str:
    """Path of the server that tells people of alerts."""
    return _brought("debian-program", "prometheus-alertmanager", "prometheus-alertmanager")


@pytest.fixture(scope="session")
def webhook_server() -> str:
    """Path of a receiver of webhooks by others (adnanh/webhook), which checks signatures by itself."""
    return _brought("debian-program", "webhook", "webhook")


@pytest.fixture(scope="session")
def node_exporter() -> str:
    """Path of the exporter that hosts run beside Lockstep."""
    return _brought("debian-program", "prometheus-node-exporter", "prometheus-node-exporter")


@pytest.fixture(scope="session")
def actionlint() -> str:
    """Path of the checker of GitHub's workflows."""
    return _brought("actionlint")


@pytest.fixture(scope="session")
def grafana_sdk() -> str:
    """Folder of Grafana's own models of a dashboard."""
    return _brought("grafana-sdk")
