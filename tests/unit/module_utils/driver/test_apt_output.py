"""What apt-get says, read once: from what real ones printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import apt_output, package_command
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.apt_output import AptFault

FIXTURES = Path(__file__).parents[2] / "fixtures"
ERRORS = FIXTURES / "apt/errors"
DESKTOP = (FIXTURES / "cases/apt-desktop-driver/said.txt").read_text()


@pytest.mark.parametrize(
    ("text", "unmet"),
    [
        (
            DESKTOP,
            "nvidia-driver-550-open: Depends: xserver-xorg-video-nvidia-550 (= 550.127.05-0ubuntu1) but it is not going to be "
            "installed",
        ),
        (
            (ERRORS / "apt-open-without-pin.txt").read_text(),
            "nvidia-open-kernel-dkms: Depends: firmware-nvidia-gsp (= 535.261.03) or firmware-nvidia-gsp-535.261.03; "
            "Depends: nvidia-open-kernel-support--v1",
        ),
        (
            (ERRORS / "apt3-solver-conflict.txt").read_text(),
            "nvidia-smi: Depends: libnvidia-ml1 (= 550.163.01-4~bpo13+1) but 580.95.05-1 is to be installed",
        ),
    ],
    ids=["desktop", "alternatives", "apt 3"],
)
def test_what_stands_under_unmet_dependencies(text: str, unmet: str) -> None:
    answer = apt_output.parse(False, text)
    assert answer.unmet
    assert answer.fault is AptFault.UNMET
    assert answer.reason == unmet


def test_a_failed_install_says_it_too() -> None:
    """ "held broken packages" was all that was said."""
    assert package_command.failure_reason(DESKTOP, 100).startswith(
        "nvidia-driver-550-open: Depends: xserver-xorg-video-nvidia-550 (= 550.127.05-0ubuntu1) but it is not going"
    )


def test_a_key_that_apt_no_longer_accepts_is_explained() -> None:
    answer = apt_output.parse(False, (ERRORS / "apt-sqv-sha1-key.txt").read_text())
    assert answer.fault is AptFault.SIGNATURE
    assert answer.reason == (
        "Signing key on DFE600ED80A5D183054253326FE03B048AF4FBAA is not accepted: SHA1 is not considered secure since 2026-02-01"
    )


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("E: Conflicting values set for option Signed-By regarding source https://x/ /: /a != /b", AptFault.SIGNED_BY),
        ("E: Malformed entry 1 in list file /etc/apt/sources.list.d/bad.list (Suite)", AptFault.SOURCES),
        ("E: Failed to fetch http://x/Packages  404  Not Found [IP: 10.0.0.1 80]", AptFault.UNREACHABLE),
        ("E: Version '550.999.01-1' for 'libcuda1' was not found", AptFault.UNKNOWN_PACKAGE),
        ("E: The package demo needs to be reinstalled, but I can't find an archive for it.", AptFault.REINSTALL),
        (
            "E: Unmet dependencies. Try 'apt --fix-broken install' with no packages (or specify a solution).",
            AptFault.UNMET,
        ),
        (
            "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.",
            AptFault.OTHER,
        ),
    ],
)
def test_kinds_of_faults(line: str, fault: AptFault) -> None:
    answer = apt_output.parse(False, f"Reading package lists...\n{line}\n")
    assert (answer.fault, answer.reason) == (fault, " ".join(line[3:].split()).rstrip("."))


def test_a_simulation() -> None:
    text = (
        "Remv old-agent [1.0]\nInst libcuda1 [550.90.07-1] (550.127.05-1 NVIDIA:testbed [amd64])\n"
        "Inst libc6:i386 (2.36 Debian [i386]) []\nConf libcuda1 (550.127.05-1 NVIDIA:testbed [amd64])\n"
    )
    answer = apt_output.parse(True, text)
    assert answer.removes == ("old-agent",)
    assert [(each.name, each.old, each.new) for each in answer.installs] == [
        ("libcuda1", "550.90.07-1", "550.127.05-1"),
        ("libc6:i386", None, "2.36"),
    ]
