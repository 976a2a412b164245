"""Bad input: one clear line and status 2, before anything is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from testbed.lib import cli

TESTBED = Path(__file__).parents[3] / "testbed" / "testbed"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: VERB"),
        (["fly"], "invalid choice"),
        (["up", "--hosts", "3"], "the testbed has 2 or 4 GPU hosts"),
        (["up", "--hosts", "two"], "invalid int value"),
        (["reboot"], "required: host"),
        (["exec", "c9", "--", "true"], "no host c9 on the testbed; there are mirror"),
        (["exec", "a1"], "exec needs a command"),
        (["cut", "nowhere"], "no host nowhere"),
        (["replace", "nowhere"], "no host nowhere"),
        (["fault", "a1", "no_such"], "no fault no_such"),
        (["fault", "a1", "xid", "many"], "'many' is not a value"),
        (["fault", "a1", "xid", "79", "--clear"], "--clear takes at most the fault's name"),
        (["ssh", "nowhere"], "no host nowhere"),
    ],
)
def test_bad_input(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testbed.lib.shell.become_root", lambda _arguments: None)
    monkeypatch.setattr("testbed.lib.shell.run", lambda *_argv, **_options: pytest.fail("something was run"))
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_faults_are_listed_without_root() -> None:
    done = subprocess.run([sys.executable, str(TESTBED), "faults"], capture_output=True, text=True, check=True)
    assert any(line.startswith("capture_hangs ") for line in done.stdout.splitlines())


def test_the_arguments_after_the_dashes_are_the_command() -> None:
    arguments = cli.parser().parse_args(["exec", "a1", "--", "ls", "-l"])
    assert cli._command(arguments.command, "exec") == ["ls", "-l"]
