"""Whether the kernel's table is the wanted one, with a kernel that is a dictionary, and the records on disk."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import firewall_live, firewall_watch, ports
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.firewall_watch import GRACE, Act, Sight, Watch, decide
from tests.unit.module_utils.ray.test_firewall import HEAD

# What nft 1.0.6 (Debian 12) prints and returns where there is no such table.
ABSENT = CommandResult(
    1, stderr="Error: No such file or directory\nlist table inet lockstep\n                ^^^^^^^^\n"
)


class Kernel:
    """nft, in short: what was loaded is listed as nft itself puts it."""

    def __init__(self) -> None:
        self.table: str | None = None
        self.broken = False
        self.loads = 0
        self.commands: list[Sequence[str]] = []

    def run(self, argv: Sequence[str], deadline: float) -> CommandResult:
        self.commands.append(argv)
        if "list" in argv:
            return ABSENT if self.table is None else CommandResult(0, f"as shown: {self.table}")
        if "delete" in argv:
            self.table = None
        return CommandResult(0)

    def load(self, argv: Sequence[str], input: str, **_: Any) -> subprocess.CompletedProcess[str]:
        if self.broken:
            return subprocess.CompletedProcess(argv, 1, "", "Error: Could not process rule: Operation not permitted\n")
        self.table, self.loads = input, self.loads + 1
        return subprocess.CompletedProcess(argv, 0, "", "")


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module, name, file in (
        (records, "HOST", "host.json"),
        (records, "ENGINE_CONFIG", "engine.json"),
        (ports, "RAY_SETTINGS", "ray.json"),
        (firewall_live, "SETTINGS", "filter.json"),
        (firewall_live, "LOADED", "run/loaded.json"),
        (firewall_live, "LOCAL_RANGE", "local"),
        (firewall_live, "RESERVED", "reserved"),
    ):
        monkeypatch.setattr(module, name, tmp_path / file)
    (tmp_path / "host.json").write_text(json.dumps(HEAD))
    (tmp_path / "filter.json").write_text(json.dumps({"clients": ["10.0.0.3"], "open": [], "ssh_port": 22}))
    (tmp_path / "local").write_text("32768\t60999\n")
    (tmp_path / "reserved").write_text("\n")
    return tmp_path


@pytest.fixture
def kernel(etc: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(firewall_live.subprocess, "run", made.load)
    monkeypatch.setattr(firewall_watch, "run_command", made.run)
    monkeypatch.setattr(firewall_live.difference, "__defaults__", (made.run,))
    monkeypatch.setattr(firewall_live.load, "__defaults__", (made.run,))
    return made


def test_a_second_apply_changes_nothing(kernel: Kernel) -> None:
    assert firewall_live.state(kernel.run) == {"wanted": True, "problem": "its table is not loaded"}
    assert firewall_live.apply(kernel.run)
    assert firewall_live.state(kernel.run) == {"wanted": True, "problem": ""}
    assert not firewall_live.apply(kernel.run)
    assert kernel.loads == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("flushed", "its table is not loaded"),
        ("edited", "its table was changed by hand"),
        ("rebooted", "its table was changed by hand"),
        ("another peer", "its table was made from other settings"),
        ("another range", "its table was made from other settings"),
        ("damaged", "its rules cannot be made: "),
        ("gone", "its rules cannot be made: "),
    ],
)
def test_what_differs_is_named(change: str, problem: str, kernel: Kernel, etc: Path) -> None:
    firewall_live.apply(kernel.run)
    if change == "flushed":
        kernel.table = None
    elif change == "edited":
        kernel.table = "accept all"
    elif change == "rebooted":
        firewall_live.LOADED.unlink()
    elif change == "another peer":
        (etc / "host.json").write_text(json.dumps({**HEAD, "peers": {**HEAD["peers"], "a4": "10.0.0.14"}}))
    elif change == "another range":
        (etc / "local").write_text("20000 65535")
    elif change == "damaged":
        (etc / "host.json").write_text("{")
    else:
        (etc / "host.json").unlink()
    assert firewall_live.state(kernel.run)["problem"].startswith(problem)


def test_without_settings_none_is_wanted(kernel: Kernel, etc: Path) -> None:
    (etc / "filter.json").unlink()
    assert firewall_live.state(kernel.run) == {"wanted": False, "problem": ""}


def test_an_nft_that_does_not_answer_is_no_absent_table(etc: Path) -> None:
    hung = firewall_live.state(lambda *_: CommandResult(None, timed_out=True))
    assert hung == {"wanted": True, "problem": "its table cannot be read: nft list: no answer within 10 s"}


def test_removed_is_removed(kernel: Kernel) -> None:
    firewall_live.apply(kernel.run)
    assert firewall_live.remove(kernel.run)
    assert kernel.table is None
    assert not firewall_live.remove(kernel.run)


@pytest.mark.parametrize(
    ("sight", "failing_for", "act"),
    [
        (Sight("", "table"), None, Act.NOTHING),
        (Sight("gone", "table"), None, Act.LOADED),
        (Sight("gone", "table", kept=True), None, Act.LOADED),
        (Sight("gone", "table"), 0.0, Act.TRY_AGAIN),
        (Sight("gone", "table", kept=True), GRACE - 0.1, Act.TRY_AGAIN),
        (Sight("gone", "table"), GRACE, Act.STOP_RAY),
        (Sight("nothing to load", None, kept=True), None, Act.STOP_RAY),
    ],
)
def test_what_a_look_leads_to(sight: Sight, failing_for: float | None, act: Act) -> None:
    assert decide(sight, failing_for) is act


class Guard:
    """A watch, what it said, and its clock."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.now = 0.0
        self.watch = Watch(self.said.append, lambda: self.now)


def test_a_flushed_table_is_loaded_again(kernel: Kernel) -> None:
    guard = Guard()
    firewall_live.apply(kernel.run)
    assert guard.watch.look() is Act.NOTHING
    kernel.table = None
    assert guard.watch.look() is Act.LOADED
    assert guard.watch.look() is Act.NOTHING
    assert guard.said == ["its table is not loaded: loaded it again"]


def test_a_damaged_host_record_keeps_the_last_rules(kernel: Kernel, etc: Path) -> None:
    guard = Guard()
    firewall_live.apply(kernel.run)
    before = kernel.table
    (etc / "host.json").write_text("{")
    assert guard.watch.look() is Act.NOTHING
    kernel.table = None
    assert guard.watch.look() is Act.LOADED
    assert kernel.table == before
    assert guard.watch.look() is Act.NOTHING
    assert len(guard.said) == 2
    assert guard.said[0].startswith("the rules cannot be made (")


def stops(kernel: Kernel) -> list[Sequence[str]]:
    return [argv for argv in kernel.commands if "systemctl" in argv]


def test_without_rules_ray_is_stopped_and_the_rules_are_still_tried(kernel: Kernel) -> None:
    guard = Guard()
    firewall_live.apply(kernel.run)
    kernel.table, kernel.broken = None, True
    assert guard.watch.look() is Act.TRY_AGAIN
    assert not stops(kernel)
    guard.now = GRACE
    assert guard.watch.look() is Act.STOP_RAY
    assert [*stops(kernel)[0]][-2:] == ["lockstep-vllm.service", "lockstep-ray.service"]
    kernel.broken = False
    assert guard.watch.look() is Act.LOADED
    assert guard.watch.look() is Act.NOTHING
    assert any("Operation not permitted" in line for line in guard.said)


def test_a_host_that_cannot_make_rules_and_had_none_runs_no_ray(kernel: Kernel, etc: Path) -> None:
    (etc / "host.json").write_text("{")
    assert Guard().watch.look() is Act.STOP_RAY
    assert stops(kernel)
