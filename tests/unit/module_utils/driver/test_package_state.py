"""What dpkg left half-way."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import package_state
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.package_problems import (
    ProblemKind,
    unfinished_packages,
)
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.package_state import Left, Unfinished

ROWS = (
    "installed\tok\tbash\t5.2\nhalf-configured\tok\tdemo-agent\t1.0\nunpacked\tok\tnvidia-dkms-550-open\t550.90.07-1\n"
    "half-installed\treinstreq\tdemo-tool\t2.0\ninstalled\treinstreq\tdemo-lib:amd64\t3.0\n"
    "triggers-pending\tok\tlibc-bin\t2.36\nconfig-files\tok\tgone\t1\n"
)
AUDIT = """\
The following packages are only half configured, probably due to problems
configuring them the first time.  The configuration should be retried using
dpkg --configure <package> or the configure menu option in dselect:
 demo-agent           agent

The following packages are missing the md5sums control file in the
database, they need to be reinstalled:
 demo-data:amd64      data of the agent
"""


def test_from_status_and_audit() -> None:
    found = package_state.merge(package_state.parse_status(ROWS), package_state.parse_audit(AUDIT))
    assert found == (
        Unfinished("demo-agent", "1.0", Left.HALF_CONFIGURED, False),
        Unfinished("demo-data:amd64", "", Left.AUDIT, False),
        Unfinished("demo-lib:amd64", "3.0", Left.HALF_INSTALLED, False),
        Unfinished("demo-tool", "2.0", Left.HALF_INSTALLED, False),
        Unfinished("libc-bin", "2.36", Left.TRIGGERS, False),
        Unfinished("nvidia-dkms-550-open", "550.90.07-1", Left.UNPACKED, True),
    )
    problems = unfinished_packages(found, own_change=False)
    assert {problem.kind for problem in problems} == {ProblemKind.UNFINISHED}
    assert [(problem.fix, problem.warns) for problem in problems] == [
        ("dpkg --configure demo-agent", False),
        ("apt-get install -y --reinstall demo-data:amd64", True),
        ("apt-get install -y --reinstall demo-lib:amd64", False),
        ("apt-get install -y --reinstall demo-tool", False),
        ("dpkg --configure -a", False),
        ("dpkg --configure nvidia-dkms-550-open", True),
    ]
    assert all(problem.warns for problem in unfinished_packages(found, own_change=True))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nvidia-utils-550", True),
        ("libnvidia-compute-550:i386", True),
        ("xserver-xorg-video-nvidia-550", True),
        ("libgl1-nvidia-glvnd-glx", True),
        ("nvidia-container-toolkit", False),
        ("cuda-toolkit-12-4", False),
        ("xserver-xorg-video-nouveau", False),
    ],
)
def test_what_is_part_of_a_driver(name: str, part: bool) -> None:
    assert package_state.is_driver_part(name) is part


def test_others_are_distinguished_from_the_drivers_own() -> None:
    rows = (
        "installed\tok\tbash\t5.2\nhalf-configured\tok\tacme-agent\t1.0\n"
        "half-configured\tok\tnvidia-dkms-550-open\t550.90.07-1\nconfig-files\tok\told-agent\t0.9\n"
        "half-installed\tok\tnvidia-container-toolkit\t1.17.8-1\n"
    )
    found = package_state.others(lambda _argv, _deadline: CommandResult(0, rows))
    assert package_state.cause(found, "a1") == (
        "dpkg cannot finish packages that do not belong to the driver on a1: acme-agent (half-configured), "
        "nvidia-container-toolkit (half-installed)"
    )


@pytest.mark.parametrize(
    ("left", "command"),
    [
        ([Left.HALF_CONFIGURED], "sudo dpkg --configure -a"),
        ([Left.TRIGGERS, Left.HALF_CONFIGURED], "sudo dpkg --configure -a"),
        ([Left.UNPACKED], "sudo apt-get install -f"),
        ([Left.HALF_INSTALLED], "sudo apt-get install -f"),
        ([Left.HALF_CONFIGURED, Left.UNPACKED], "sudo apt-get install -f"),
    ],
)
def test_the_command_that_finishes_them(left: list[Left], command: str) -> None:
    assert package_state.remedy([Unfinished("acme-agent", "1.0", each, False) for each in left]) == command
