"""Packages that dpkg left half-way: which are not the driver's, and what finishes them."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import unfinished
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.unfinished import Unfinished

ROWS = """\
install\tinstalled\tbash\t5.2
install\thalf-configured\tacme-agent:amd64\t1.0
hold\thalf-configured\tnvidia-dkms-550-open\t550.90.07-1
deinstall\tconfig-files\told-agent\t0.9
install\thalf-installed\tnvidia-container-toolkit\t1.17.8-1
"""


def test_others_are_told_from_the_drivers_own() -> None:
    found = unfinished.others(lambda _argv, _deadline: CommandResult(0, ROWS))
    assert found == (
        Unfinished("acme-agent", "half-configured"),
        Unfinished("nvidia-container-toolkit", "half-installed"),
    )
    assert unfinished.cause(found, "a1") == (
        "dpkg cannot finish packages that do not belong to the driver on a1: acme-agent (half-configured), "
        "nvidia-container-toolkit (half-installed)"
    )


@pytest.mark.parametrize(
    ("statuses", "command"),
    [
        (["half-configured"], "sudo dpkg --configure -a"),
        (["triggers-pending", "half-configured"], "sudo dpkg --configure -a"),
        (["unpacked"], "sudo apt-get install -f"),
        (["half-installed"], "sudo apt-get install -f"),
        (["half-configured", "unpacked"], "sudo apt-get install -f"),
    ],
)
def test_the_command_that_finishes_them(statuses: list[str], command: str) -> None:
    assert unfinished.remedy([Unfinished("acme-agent", status) for status in statuses]) == command
