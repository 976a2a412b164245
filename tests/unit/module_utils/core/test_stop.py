from __future__ import annotations

import pickle

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.errors import StopError
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop


@pytest.mark.parametrize(
    ("cause", "msg"),
    [
        ("a1 does not answer", "a1 does not answer. Next: ansible a1 -m ping"),
        ("wave 1 failed:\n  - a1: no space left", "wave 1 failed:\n  - a1: no space left\nNext: ansible a1 -m ping"),
    ],
)
def test_the_message_has_cause_and_next_command(cause: str, msg: str) -> None:
    assert Stop(cause, "ansible a1 -m ping").as_result() == {"msg": msg, "next": "ansible a1 -m ping"}


def test_a_cause_alone_has_no_next_command() -> None:
    assert Stop("a1 does not answer").as_result() == {"msg": "a1 does not answer"}


class Refused(StopError):
    """Any of those that are raised."""


def test_an_error_keeps_its_command_from_process_to_process() -> None:
    for error in (Refused("no stamp", "site.yml"), pickle.loads(pickle.dumps(Refused("no stamp", "site.yml")))):
        assert (str(error), Stop.of(error, "else")) == ("no stamp. Next: site.yml", Stop("no stamp", "site.yml"))


def test_whoever_reports_an_error_names_the_command_that_it_lacks() -> None:
    assert Stop.of(Refused("no stamp"), "site.yml") == Stop("no stamp", "site.yml")
    assert Stop.of(OSError("no space left"), "df -h") == Stop("no space left", "df -h")
