"""What the action says of work on a model that failed, and of a page cache that was not warmed."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.action import model
from ansible_collections.lockstep.vllm.plugins.module_utils.model.codes import Result


@pytest.mark.parametrize(
    ("code", "cause", "command"),
    [
        (Result.DAMAGED, "a2: x is damaged. What is damaged", "ansible-playbook playbooks/stage_model.yml --limit a2"),
        (Result.NO_ROOM, "a2: x is damaged", "ansible-playbook playbooks/prune_models.yml --check"),
        (
            Result.REFUSED,
            "another token (vllm_server_hub_token)",
            "ansible-playbook playbooks/stage_model.yml --limit a2",
        ),
        (
            Result.DEADLINE,
            "a2: not done after 60 s (x is damaged)",
            "ansible-playbook playbooks/stage_model.yml --limit a2",
        ),
        (Result.NOT_STAGED, "a2: x is damaged", "ansible-playbook playbooks/stage_model.yml --limit a2"),
    ],
)
def test_every_failure_names_its_host_and_what_to_type(code: Result, cause: str, command: str) -> None:
    stop = model.why("a2", code, "x is damaged", 60)
    assert cause in stop.cause
    assert stop.next == command


@pytest.mark.parametrize(
    ("result", "warnings", "message"),
    [
        ({"failed": False, "reason": ""}, None, ""),
        ({"failed": False, "reason": "was not read: too large"}, None, "a2: was not read: too large"),
        ({"failed": True, "msg": "no systemd"}, ["a2: no systemd"], "a2: no systemd"),
    ],
)
def test_a_page_cache_that_was_not_warmed_is_a_warning_and_fails_nothing(
    result: dict[str, object], warnings: list[str] | None, message: str
) -> None:
    returned = model.as_warning("a2", result)
    assert (returned["failed"], returned.get("warnings"), returned["msg"]) == (False, warnings, message)
