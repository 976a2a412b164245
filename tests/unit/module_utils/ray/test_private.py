"""What is private of Ray: used as it is in the Ray that is locked."""

from __future__ import annotations

import os
import re
import signal
import sys
import types
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.ray import private
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.ports import RayPorts

ROOT = Path(__file__).parents[4]
LOCKS = sorted((ROOT / "roles" / "serving_runtime" / "files" / "locks").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_it_was_read_in_the_ray_that_is_locked(lock: Path) -> None:
    """Red after an upgrade of Ray: read private.py against the new one, then raise RAY."""
    assert re.findall(r"^ray==(\S+)", lock.read_text(), re.MULTILINE) == [private.RAY]


def test_ports_that_have_no_option_are_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"CREDENTIALS_DIRECTORY": "/run/c"})
    private.set_environment(RayPorts(autoscaler_metrics=7001, dashboard_metrics=7002))
    assert os.environ["AUTOSCALER_METRIC_PORT"] == "7001"
    assert os.environ["DASHBOARD_METRIC_PORT"] == "7002"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == "/run/c/ray-token"


@pytest.mark.parametrize(("stopped", "status"), [(True, 143), (False, 1)])
def test_a_stop_is_no_failure_and_a_failure_is_no_stop(monkeypatch, stopped, status):
    """Ray's handler of SIGTERM, and its start where it fails, both end with 1."""
    utils = types.SimpleNamespace(set_sigterm_handler=lambda handler: signal.signal(signal.SIGTERM, handler))

    def cli():
        utils.set_sigterm_handler(lambda *_: sys.exit(1))
        if stopped:
            os.kill(os.getpid(), signal.SIGTERM)
        sys.exit(1)

    ray = {"ray.scripts.scripts": types.SimpleNamespace(cli=cli), "ray._private.utils": utils}
    monkeypatch.setattr(private.importlib, "import_module", ray.__getitem__)
    monkeypatch.setattr(sys, "argv", [])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert private.command_line(["start"]) == status
    finally:
        signal.signal(signal.SIGTERM, before)
