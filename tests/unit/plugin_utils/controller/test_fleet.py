"""The program that goes to standard input, and reading its result."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import fleet
from tests.machine import PATIENCE


def as_on_a_host(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *fleet.PYTHON_OPTIONS.split()],
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_library_is_part_of_the_program() -> None:
    text = fleet.program("rollout.topology", "absent", 7)
    done = as_on_a_host(text)
    # There is no topology.absent: the library was imported, and the missing function is named.
    assert "has no attribute 'absent'" in done.stderr


def test_a_module_that_is_not_there_is_no_program() -> None:
    with pytest.raises(ModuleNotFoundError, match="absent"):
        fleet.program("absent", "collect", {})


def test_the_probe_program_is_complete() -> None:
    text = fleet.program(
        "host.probe", "collect", {"preflight": True, "ports": [1], "peers": {"localhost": "127.0.0.1"}}
    )
    done = as_on_a_host(text)
    answer = fleet.read(done.returncode, done.stdout.encode(), done.stderr.encode())
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


def test_every_module_that_travels_can_run_on_a_host() -> None:
    """Each is run when something of it is first wanted, which may be only where a driver or a filter is there."""
    run_all = 'for name in sources: getattr(importlib.import_module(("lockstep." + name).rstrip(".")), "absent", None)'
    text = fleet.program("host.probe", "collect", {})
    done = as_on_a_host(text.replace("entry = ", f"{run_all}\nentry = "))
    assert fleet.read(done.returncode, done.stdout.encode(), done.stderr.encode()).error is None
    assert text.count("entry = ") == 1


def test_a_module_that_is_not_wanted_is_not_run(tmp_path: Path) -> None:
    text = fleet.program("core.records", "sync_folder", str(tmp_path)).replace("os._exit(0)", "print(*sys.modules)")
    loaded = as_on_a_host(text).stdout.splitlines()[-1].split()
    assert "lockstep.core.typed" in loaded
    assert "dataclasses" not in loaded  # which typed.py imports


def test_files_on_the_host_do_not_change_what_is_imported(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not this one')")
    done = subprocess.run(
        [sys.executable, *fleet.PYTHON_OPTIONS.split()],
        input=fleet.program("core.records", "absent", 7),
        capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert "has no attribute 'absent'" in done.stderr


class Recorder(fleet.Fleet):
    """Writes down which hosts' programs ran; ``broken`` hosts cannot be prepared."""

    def __init__(self) -> None:
        super().__init__(None, become=False, threads=1)
        self.events: list[str] = []

    def _connect(self, host: str, variables: Mapping[str, Any]) -> Any:
        if variables.get("broken"):
            raise ValueError(host)
        return host

    def _run_one(self, connection: Any, text: str, variables: Mapping[str, Any], watch: Any) -> fleet.Answer:
        self.events.append(connection)
        return fleet.Answer(value=text)


def test_a_host_that_cannot_be_prepared_keeps_all_programs_from_running() -> None:
    recorder = Recorder()
    variables: dict[str, Any] = {"a1": {}, "a2": {"broken": True}}
    with pytest.raises(ValueError, match="a2"):
        recorder.run({"a1": "x", "a2": "x"}, variables)
    assert recorder.events == []


def test_read_only_programs_run_while_other_hosts_are_prepared() -> None:
    recorder = Recorder()
    answered = threading.Event()
    recorder._run_one = lambda *_: answered.set() or fleet.Answer(value="here")  # type: ignore[method-assign,func-returns-value]

    def programs() -> Iterator[tuple[str, str, fleet.ConnectionVariables]]:
        yield "a1", "x", {}
        assert answered.wait(30), "the first host's program did not run before the second was prepared"
        yield "a2", "x", {}

    answers = recorder.run_read_only(programs())
    assert {host: answer.value for host, answer in answers.items()} == {"a1": "here", "a2": "here"}


LOCAL: fleet.ConnectionVariables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}


def test_a_program_runs_over_a_real_connection() -> None:
    text = fleet.program("host.probe", "collect", {})
    answers = fleet.Fleet(PlayContext(), become=False, threads=2).run(
        {"a1": text, "a2": text}, dict.fromkeys(["a1", "a2"], LOCAL)
    )
    assert [answer.error for answer in answers.values()] == [None, None]
    assert answers["a1"].value["os"] == answers["a2"].value["os"]


def test_an_interpreter_that_is_missing_is_that_host_s_error(tmp_path: Path) -> None:
    missing: fleet.ConnectionVariables = {**LOCAL, "ansible_python_interpreter": str(tmp_path / "no python")}
    text = fleet.program("host.probe", "collect", {})
    answers = fleet.Fleet(PlayContext(), become=False, threads=2).run(
        {"a1": text, "a2": text}, {"a1": LOCAL, "a2": missing}
    )
    assert answers["a1"].error is None
    assert "the program exited with status 127" in str(answers["a2"].error)
    assert answers["a2"].reachable


def test_a_program_holds_only_what_it_imports() -> None:
    """The library is sent to every host at every probe: the engine's supervisor in it would cost each of them."""
    sizes = {
        module: len(fleet.program(module, "collect", {})) for module in ("host.probe", "engine.cli", "core.records")
    }
    assert sizes["core.records"] < sizes["host.probe"] < sizes["engine.cli"]


@pytest.mark.parametrize(
    ("status", "out", "err", "value", "error", "reachable"),
    [
        (0, "motd\n\x1e" + json.dumps({"a": 1}), "", {"a": 1}, None, True),
        (0, "\x1e{broken", "", None, "not JSON", True),
        (0, "nothing", "", None, "no error output", True),
        (1, "", "Traceback\nValueError: x", None, "status 1: ValueError: x", True),
        (255, "", "ssh: connect to host a2: No route to host", None, "No route to host", False),
    ],
)
def test_read(status: int, out: str, err: str, value: object, error: str | None, reachable: bool) -> None:
    answer = fleet.read(status, out.encode(), err.encode())
    assert answer.value == value
    assert answer.reachable is reachable
    assert (answer.error is None) if error is None else (error in str(answer.error))


def test_names_that_mean_no_address_here() -> None:
    names = ["localhost", "192.0.2.7", "no-such-host.invalid", "no-such-host.invalid"]
    assert fleet.unresolved(names) == {"no-such-host.invalid"}
    assert fleet.unresolved([]) == set()


def test_a_look_up_that_does_not_end_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "run_command", lambda _argv, _deadline: CommandResult(None, timed_out=True))
    assert fleet.unresolved(["slow.example"]) == set()


def _as_python_parses_them(module: str, source: str, package: bool) -> set[str]:
    here = module.split(".") if package else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1] + (node.module.split(".") if node.module else [])
            found |= {".".join(base), *(".".join([*base, alias.name]) for alias in node.names)}
    return found - {""}


def test_every_import_of_the_library_is_found() -> None:
    for file in fleet.LIBRARY.rglob("*.py"):
        package = file.name == "__init__.py"
        name = ".".join(file.relative_to(fleet.LIBRARY).with_suffix("").parts[: -1 if package else None])
        source = file.read_text(encoding="utf-8")
        assert fleet._imported(name, source, package) >= _as_python_parses_them(name, source, package), file
