"""All that Lockstep uses of Ray beside its command line and public API, in one place.

Read in Ray ``RAY``; a test holds that against the locks of serving_runtime, so that a new Ray is read anew first:

- ``ray.core.generated``: the messages and stubs of its GCS;
- ``ray.scripts.scripts.get_ray_client_dependency_error`` and ``cli``; ``ray._private.utils.set_sigterm_handler``;
- the environment variables below.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from .ports import RayPorts

RAY = "2.60.0"
ENDED = 143
"""Exit status of a unit that ends by itself: as if stopped, so that a requested stop is no failure either."""


def generated(name: str) -> Any:
    """A module of Ray's generated gRPC code."""
    return importlib.import_module(f"ray.core.generated.{name}")


def set_environment(ports: RayPorts) -> None:
    """What Ray reads from its environment alone, for Ray to be started from this process."""
    os.environ["AUTOSCALER_METRIC_PORT"] = str(ports.autoscaler_metrics)
    os.environ["DASHBOARD_METRIC_PORT"] = str(ports.dashboard_metrics)
    # Whoever stops Ray has drained it; Ray's own wait of 30 s would use up the time that a stop has and end in SIGKILL.
    os.environ.setdefault("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "0")
    # The unacknowledged data of a peer that was cut off end its connection after this (TCP_USER_TIMEOUT; Ray's own is two
    # minutes): the head must not talk to a worker that is back over the connection that died with the cut.
    os.environ.setdefault("RAY_grpc_client_keepalive_timeout_ms", "20000")
    os.environ.setdefault(
        "RAY_AUTH_TOKEN_PATH", os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", "/"), "ray-token")
    )


def command_line(arguments: list[str]) -> int:
    """Ray's command line, with its client server off: that has no switch of its own, only an absent dependency.

    Returns:
        Its exit status, ENDED after SIGTERM.
    """
    scripts: Any = importlib.import_module("ray.scripts.scripts")
    scripts.get_ray_client_dependency_error = lambda: ImportError("Lockstep leaves the Ray client server off")
    sys.argv = ["ray", *arguments]
    stopped = _note_sigterm(importlib.import_module("ray._private.utils"))
    try:
        return int(scripts.cli() or 0)
    except SystemExit as end:
        return ENDED if stopped.is_set() else end.code if isinstance(end.code, int) else 1


def _note_sigterm(utils: Any) -> threading.Event:
    """Set once SIGTERM has come: Ray's handler ends with 1 then, as after a failure."""
    stopped, install = threading.Event(), utils.set_sigterm_handler

    def noting(handler: Callable[..., None]) -> None:
        def handle(*arguments: Any) -> None:
            stopped.set()
            handler(*arguments)

        install(handle)

    utils.set_sigterm_handler = noting
    return stopped
