from __future__ import annotations

import pytest

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
