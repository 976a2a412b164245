"""What the parts of a gate yield."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Literal

from .codes import Code

Severity = Literal["fail", "warn"]


THIS_HOST = "this host"
"""Stands for the name of the host where it is not known."""


class Command(str):
    """A remediation that works when it is pasted on the controller; any other is for people to read."""


INSTALL = Command("ansible-playbook site.yml")


def verify(hosts: str) -> Command:
    """The command that runs the gates of these hosts anew."""
    return Command(f"ansible-playbook playbooks/verify.yml --limit {hosts}")


def on_host(host: str, command: str) -> Command:
    """A command to be run on a host, as root."""
    return (
        Command(command)
        if host == THIS_HOST
        else Command(f"ansible {host} -b -m ansible.builtin.command -a {shlex.quote(command)}")
    )


def cause_and_next(cause: str, remediation: str, host: str | None) -> tuple[str, str]:
    """The cause of a verdict, with a remediation that is no command, and the next command."""
    if isinstance(remediation, Command):
        return cause, remediation
    return f"{cause}. {remediation}", verify(host) if host else "ansible-playbook playbooks/verify.yml"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its code, the cause, and what to do."""

    code: str
    cause: str
    remediation: str
    severity: Severity = "fail"


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing wrong between hosts: its code, who is to blame, the cause, what to do, the pair where it takes two."""

    code: Code
    host: str
    cause: str
    remediation: str
    pair: tuple[str, str] | None = None
