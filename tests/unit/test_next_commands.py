"""``next`` is a command that works when it is pasted, or empty: never a sentence. What is written in the code is held to that here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
PROGRAMS = {
    "ansible", "ansible-playbook", "cd", "df", "dkms", "dmesg", "dpkg", "journalctl", "less", "modinfo", "mv", "nft", "nvidia-smi",
    "pip", "rm", "systemctl",
}  # fmt: skip
HOLDERS = {"Stop", "StopError", "CannotRun", "GiveUp", "InstallError", "LoadFailed", "RecordError", "SettingsError"}


def given(call: ast.Call) -> Iterator[ast.expr]:
    """The expressions that a call gives as ``next``."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in HOLDERS:
        yield from call.args[1:2]
    yield from (keyword.value for keyword in call.keywords if keyword.arg == "next")


def texts(expression: ast.expr) -> Iterator[str]:
    """Beginnings of the texts that are written out in an expression; what is computed elsewhere is not known here."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        yield expression.value
    elif isinstance(expression, ast.JoinedStr) and isinstance(expression.values[0], ast.Constant):
        yield str(expression.values[0].value)
    elif isinstance(expression, ast.IfExp):
        yield from texts(expression.body)
        yield from texts(expression.orelse)
    elif isinstance(expression, ast.BoolOp):
        for value in expression.values:
            yield from texts(value)


def written() -> Iterator[tuple[str, str]]:
    for path in sorted(PLUGINS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for expression in given(node):
                    for text in texts(expression):
                        yield f"{path.relative_to(PLUGINS)}:{node.lineno}", text


WRITTEN = list(written())


def test_some_are_written_out() -> None:
    assert len(WRITTEN) > 40


@pytest.mark.parametrize(("where", "text"), WRITTEN, ids=[where for where, _text in WRITTEN])
def test_next_is_a_command(where: str, text: str) -> None:
    assert not text or text.split()[0] in PROGRAMS
    assert "HOST" not in text.split()


def of_playbooks() -> Iterator[tuple[str, str]]:
    root = PLUGINS.parent
    for folder in ("playbooks", "roles"):
        for path in sorted((root / folder).rglob("*.yml")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                text = line.strip().removeprefix("next: ").strip("\"'")
                if line.strip().startswith("next: ") and not text.startswith("{{"):
                    yield f"{path.relative_to(root)}:{number}", text


@pytest.mark.parametrize(("where", "text"), list(of_playbooks()))
def test_next_of_a_playbook_is_a_command(where: str, text: str) -> None:
    assert text.split()[0] in PROGRAMS, where
    assert "," not in text.split("}}")[-1], where
