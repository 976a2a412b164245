"""The program that travels on standard input, and reading what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import fleet


def as_on_a_host(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *fleet.PYTHON_OPTIONS.split()],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_library_travels_with_the_program() -> None:
    text = fleet.program("rollout.topology", "absent", 7)
    done = as_on_a_host(text)
    # There is no topology.absent: the library was found and imported, and the missing entry is named.
    assert "has no attribute 'absent'" in done.stderr


def test_the_survey_travels_whole() -> None:
    text = fleet.program(
        "host.probe", "collect", {"preflight": True, "ports": [1], "peers": {"localhost": "127.0.0.1"}}
    )
    done = as_on_a_host(text)
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


def test_what_lies_on_the_host_does_not_change_what_is_imported(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not this one')")
    done = subprocess.run(
        [sys.executable, *fleet.PYTHON_OPTIONS.split()],
        input=fleet.program("core.records", "absent", 7),
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert "has no attribute 'absent'" in done.stderr


class Recorder(fleet.Fleet):
    """Hosts that are prepared and answer in an order that is written down; ``broken`` cannot be prepared."""

    def __init__(self) -> None:
        super().__init__(None, become=False, threads=1)
        self.events: list[str] = []

    def _connect(self, host: str, variables: Mapping[str, Any]) -> Any:
        if variables.get("broken"):
            raise ValueError(host)
        return host

    def _ask_one(self, connection: Any, text: str, variables: Mapping[str, Any]) -> fleet.Answer:
        self.events.append(connection)
        return fleet.Answer(value=text)


def test_a_host_that_cannot_be_prepared_keeps_all_programs_from_running() -> None:
    fleet_of_two = Recorder()
    with pytest.raises(ValueError, match="a2"):
        fleet_of_two.ask({"a1": "x", "a2": "x"}, {"a1": {}, "a2": {"broken": True}})
    assert fleet_of_two.events == []


def test_hosts_that_are_only_looked_at_answer_while_others_are_prepared() -> None:
    recorder = Recorder()
    answered = threading.Event()
    recorder._ask_one = lambda *_: answered.set() or fleet.Answer(value="here")  # type: ignore[method-assign,func-returns-value]

    def questions() -> Iterator[fleet.Question]:
        yield "a1", "x", {}
        assert answered.wait(30), "the first host was not asked before the second was prepared"
        yield "a2", "x", {}

    answers = recorder.ask_each(questions())
    assert {host: answer.value for host, answer in answers.items()} == {"a1": "here", "a2": "here"}


def test_what_a_module_does_not_import_stays_here() -> None:
    """Every host is sent the library again: a survey that brought the engine's supervisor along would cost each of them."""
    sizes = {
        module: len(fleet.program(module, "collect", {})) for module in ("host.probe", "engine.cli", "core.records")
    }
    assert sizes["core.records"] < sizes["host.probe"] < sizes["engine.cli"]


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
