"""The program that travels on standard input, and reading what comes back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils import fleet


def test_the_library_travels_with_the_program() -> None:
    text = fleet.program("topology", "absent", 7)
    done = subprocess.run(
        [sys.executable, "-IB", "-"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    # There is no topology.absent: the library was found and imported, and the missing entry is named.
    assert "has no attribute 'absent'" in done.stderr


def test_the_survey_travels_whole() -> None:
    text = fleet.program("survey", "collect", {"preflight": True, "ports": [1], "peers": {"localhost": "127.0.0.1"}})
    done = subprocess.run(
        [sys.executable, "-IB", "-"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    answer = fleet.read(done.returncode, done.stdout, done.stderr)
    assert answer.error is None
    assert answer.value["preflight"]["names"] == {"localhost": None}
    assert set(answer.value) >= {
        "os",
        "boot",
        "driver",
        "runtime",
        "fingerprint_digest",
        "units",
        "stamps",
        "quarantine",
    }


def test_what_a_module_does_not_import_stays_here() -> None:
    """Every host is sent the library again: a survey that brought the engine's supervisor along would cost each of them."""
    sizes = {module: len(fleet.program(module, "collect", {})) for module in ("survey", "engine", "records")}
    assert sizes["records"] < sizes["survey"] < sizes["engine"]


@pytest.mark.parametrize(
    ("status", "out", "err", "value", "error", "reachable"),
    [
        (0, "motd\n\x1e" + json.dumps({"a": 1}), "", {"a": 1}, None, True),
        (0, "\x1e{broken", "", None, "not JSON", True),
        (0, "nothing", "", None, "said nothing", True),
        (1, "", "Traceback\nValueError: x", None, "status 1: ValueError: x", True),
        (255, "", "ssh: connect to host a2: No route to host", None, "No route to host", False),
    ],
)
def test_read(status: int, out: str, err: str, value: object, error: str | None, reachable: bool) -> None:
    answer = fleet.read(status, out, err)
    assert answer.value == value
    assert answer.reachable is reachable
    assert (answer.error is None) if error is None else (error in str(answer.error))
