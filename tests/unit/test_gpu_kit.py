"""The kit for a GPU machine (tests/gpu) against the code of today: module options, programs, settings. Nothing of it runs here."""

from __future__ import annotations

import importlib
import os
import py_compile
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import config
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import captured, main

ROOT = Path(__file__).parents[2]
KIT = ROOT / "tests" / "gpu"
PLAYBOOKS = sorted(KIT.glob("*.yml"))
SCRIPTS = [
    path for path in sorted(KIT.iterdir()) if path.is_file() and path.read_text().startswith("#!/usr/bin/env bash")
]
PLUGINS = "ansible_collections.lockstep.vllm.plugins"
INVENTORY = "all: {children: {lockstep: {children: {replica_a: {hosts: {gpu1: {ansible_connection: local}}}}}}}\n"


def tasks() -> Iterator[Any]:
    for path in PLAYBOOKS:
        for play in yaml.safe_load(path.read_text()):
            for task in play["tasks"]:
                for name, arguments in task.items():
                    if name.startswith("lockstep.vllm."):
                        yield pytest.param(name.rpartition(".")[2], arguments or {}, id=f"{path.stem}: {task['name']}")


def documented(module: str) -> dict[str, Any]:
    """A module's options, those of its fragments included."""
    text = yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{module}").DOCUMENTATION)
    found = dict(text.get("options") or {})
    for fragment in text.get("extends_documentation_fragment") or []:
        name, _, section = fragment.removeprefix("lockstep.vllm.").partition(".")
        of = importlib.import_module(f"{PLUGINS}.doc_fragments.{name}").ModuleDocFragment
        found |= yaml.safe_load(getattr(of, section.upper() or "DOCUMENTATION")).get("options") or {}
    return found


@pytest.mark.parametrize(("module", "arguments"), list(tasks()))
def test_a_task_asks_what_its_module_takes(module: str, arguments: Mapping[str, Any]) -> None:
    options = documented(module)
    assert set(arguments) <= set(options)
    assert {name for name, option in options.items() if option.get("required")} <= set(arguments)
    for name, value in arguments.items():
        choices = options[name].get("choices")
        assert choices is None or set(value if isinstance(value, list) else [value]) <= set(choices)


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.name)
def test_what_is_kept_of_a_result_is_what_its_module_gives(playbook: Path) -> None:
    plays = yaml.safe_load(playbook.read_text())
    modules = {
        task["register"]: next(name for name in task if name.startswith("lockstep.vllm.")).rpartition(".")[2]
        for play in plays
        for task in play["tasks"]
        if "register" in task
    }
    used = {
        (name, key)
        for name, key in re.findall(r"\b(\w+)\.(\w+)", yaml.safe_dump(plays))
        if name in modules and key not in ("results", "msg")  # of a loop, and what every module says
    }
    assert used or playbook.stem == "faults"
    for name, key in used:
        given = yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{modules[name]}").RETURN)
        assert key in given, (name, key)


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.name)
def test_a_playbook_s_syntax(playbook: Path, tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").write_text(INVENTORY)
    command = [
        Path(sys.executable).with_name("ansible-playbook"),
        "--syntax-check",
        "-i",
        tmp_path / "inventory.yml",
        playbook,
    ]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_host_is_set_up_before_any_gate() -> None:
    first = yaml.safe_load((KIT / "healthy.yml").read_text())[0]["tasks"][0]
    assert "lockstep.vllm.host_setup" in first


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_s_syntax(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert not re.search(r"(^|[;&|(] *)ip ", text, re.MULTILINE), "the machine has no ip"
    for program in re.findall(r"-m (lockstep[\w.]+)", text):
        assert hasattr(importlib.import_module(program.replace("lockstep", f"{PLUGINS}.module_utils", 1)), "main")


@pytest.mark.parametrize("source", sorted(KIT.rglob("*.py")), ids=lambda path: path.name)
def test_a_program_compiles(source: Path, tmp_path: Path) -> None:
    py_compile.compile(str(source), cfile=str(tmp_path / "compiled"), doraise=True)


def test_what_is_carried_comes_in_pieces_that_fit() -> None:
    (size,) = re.findall(r"split -b (\d+)", (KIT / "prepare").read_text())
    assert int(size) <= 52_000_000


def test_programs_of_the_environment_may_be_spawned(tmp_path: Path) -> None:
    """vLLM's engine is a spawned process, which imports the program that started it."""
    (form,) = re.findall(r"printf '(#!%s/python.*?)' ", (KIT / "engine").read_text())
    program = form.replace("%s", "/bin", 1).replace("%s", "json", 1).replace("\\n", "\n")
    compile(program, "vllm", "exec")
    assert '__name__ == "__main__"' in program


def test_the_engine_s_settings_are_understood() -> None:
    asked = config.parse(yaml.safe_load((KIT / "engine.json").read_text()))
    assert asked.model == "/tmp/model"


def faults(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.delenv("LOCKSTEP_GPU_FAULT", raising=False)
    spec = importlib.util.spec_from_file_location("gpu_faults", KIT / "faults" / "sitecustomize.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_faults_strike_what_the_ranks_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class that a capture takes from torch, in the program that a rank is."""
    source = Path(captured.__file__).read_text()
    assert "torch.cuda.CUDAGraph()" in source
    assert "graph.replay()" in source
    assert "lockstep.gates.ranks.main" in Path(main.__file__).read_text()
    assert '"lockstep.gates.ranks.main" in sys.orig_argv' in (KIT / "faults" / "sitecustomize.py").read_text()


def test_every_fault_that_is_asked_for_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()
    for task in yaml.safe_load((KIT / "faults.yml").read_text())[0]["tasks"]:
        arguments = next(value for name, value in task.items() if name != "name")
        fault = (arguments.get("environment") or {}).get("LOCKSTEP_GPU_FAULT")
        asked |= set(task["loop"] if fault == "{{ item }}" else [fault]) - {None}
    assert asked == set(faults(monkeypatch).FAULTS)


def test_a_stale_replay_is_every_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed = []

    class Graph:
        def replay(self) -> None:
            replayed.append(1)

    torch = SimpleNamespace(cuda=SimpleNamespace(CUDAGraph=Graph))
    faults(monkeypatch).strike(torch, "replay_stale")
    graph = torch.cuda.CUDAGraph()
    for _ in range(20):
        graph.replay()
    assert len(replayed) == 18


def test_an_interface_is_found_without_ip() -> None:
    done = subprocess.run(
        [sys.executable, KIT / "interface.py", "127.0.0.1"], capture_output=True, text=True, check=False
    )
    loopback = next(name for _, name in socket.if_nameindex())
    assert done.stdout.strip() == loopback
    assert subprocess.run(
        [sys.executable, KIT / "interface.py", "192.0.2.77"], capture_output=True, check=False
    ).returncode
