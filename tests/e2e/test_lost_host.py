"""A host whose root is lost answers what it likes: status and plan of the other are what they were, and it is named.

These need hosts that answer, not a cluster that serves: the hosts may be bare.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.lab import Lab

pytestmark = pytest.mark.long

HONEST, LOST = "a1", "a2"
LIAR = "/usr/local/bin/liar"
OVERLAY = f"all: {{hosts: {{{LOST}: {{ansible_python_interpreter: {LIAR}}}}}}}"
"""The inventory's Python of that host, by which every probe runs, prints what its root likes."""
DEADLINE = 120.0
"""Seconds that one host has for its answer."""
LIES = {
    "without end": "exec yes",
    "with errors without end": "exec yes >&2",
    "of brackets": "printf '\\036'; head -c 200000 /dev/zero | tr '\\0' '['",
    "of a number of 400 digits": "printf '\\036{\"clock\": 1'; head -c 400 /dev/zero | tr '\\0' 0; printf '}'",
    "that is no number": "printf '\\036{\"clock\": NaN}'",
    "that is a list": "printf '\\036[1]'",
    "that is empty": "true",
    "that never ends": "exec sleep 3600",
}
NOT_REFUSED = {
    "that moves a terminal": r"""printf '\036{"\\u001b[2J": "\\u009b2J\\u202e", "host": "\\u001b]0;x\\u0007"}'""",
    "of the other host": f"""printf '\\036{{"host": "{HONEST}", "fingerprint": {{"driver": "1"}}}}'""",
}


@pytest.fixture(scope="module")
def before(lab: Lab) -> dict[str, Any]:
    return of(lab.status(), HONEST)


@pytest.fixture
def lie(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    program = {**LIES, **NOT_REFUSED}[request.param]
    lab.on(LOST, f"cat >{LIAR} <<'END'\n#!/bin/sh\ncat >/dev/null\n{program}\nEND\nchmod +x {LIAR}")
    yield request.param
    lab.on(LOST, f"rm {LIAR}")


def of(status: dict[str, Any], host: str) -> dict[str, Any]:
    (found,) = [each for replica in status["replicas"] for each in replica["hosts"] if each["host"] == host]
    return dict(found)


@pytest.mark.parametrize("lie", [*LIES, *NOT_REFUSED], indirect=True)
def test_a_status_of_the_other_host_is_what_it_was(lab: Lab, before: dict[str, Any], lie: str) -> None:
    status = lab.status(overlay=OVERLAY)
    assert of(status, HONEST) == before
    assert of(status, LOST) != before
    assert not re.search("[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", str(status))


@pytest.mark.parametrize("lie", LIES, indirect=True)
def test_a_plan_refuses_that_host_alone(lab: Lab, lie: str) -> None:
    play = lab.play("playbooks/preflight.yml", overlay=OVERLAY)
    assert play.rc != 0
    assert play.seconds < DEADLINE + 120
    refused = "\n".join(play.failures())
    assert re.search(rf"{LOST}\b.*cannot be probed", refused), play.explained()
    assert not re.search(rf"{HONEST}\b.*cannot be probed", refused)
