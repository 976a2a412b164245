"""What is taken out of Debian's archive, and how it is offered again."""

from __future__ import annotations

import subprocess

import pytest

from testbed.lib import archive, debian_drivers, image, layout
from testbed.lib.debian_drivers import Offer
from testbed.lib.errors import TestbedError, UsageError

INDEX = """Package: nvidia-open-kernel-dkms
Version: 535.261.03-1
Filename: pool/contrib/n/nvidia-open-kernel-dkms_535.261.03-1_amd64.deb

Package: nvidia-kernel-dkms
Version: 535.261.03-1
Filename: pool/non-free/n/nvidia-kernel-dkms_535.261.03-1_amd64.deb

Package: hello
Version: 2.10-3
Filename: pool/main/h/hello_2.10-3_amd64.deb
"""
FOUND = [
    *debian_drivers.offers(INDEX, "bookworm", "non-free"),
    Offer("bookworm-security", "non-free", "nvidia-kernel-dkms", "535.309.01-0+deb12u1", "pool/x.deb", ""),
    Offer("bookworm-backports", "non-free", "nvidia-kernel-dkms", "535.216.03-2~bpo12+1", "pool/y.deb", ""),
    Offer("bookworm-updates", "non-free", "nvidia-kernel-dkms", "535.261.03-1", "pool/z.deb", ""),
]


def test_every_driver_once() -> None:
    assert debian_drivers.drivers(FOUND) == [
        ("open", "535.261.03-1"),
        ("proprietary", "535.261.03-1"),
        ("proprietary", "535.309.01-0+deb12u1"),
        ("proprietary", "535.216.03-2~bpo12+1"),
    ]


def test_what_scenarios_are_given() -> None:
    facts = debian_drivers.facts("bookworm", FOUND)
    assert facts["real_bookworm_release_open"] == "535.261.03-1"
    assert facts["real_bookworm_security_proprietary"] == "535.309.01-0+deb12u1"
    assert facts["real_bookworm_backports_proprietary"] == "535.216.03-2~bpo12+1"
    assert "real_bookworm_security_open" not in facts


def test_backports_stay_what_apt_does_not_choose_by_itself() -> None:
    text = debian_drivers.release_file(
        {"Suite": "bookworm-backports", "NotAutomatic": "yes"}, ["main"], {"main/Packages": b""}
    )
    assert "NotAutomatic: yes\n" in text
    assert f" {'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'} 0 main/Packages\n" in text


def test_where_the_archive_lies_is_what_this_machine_s_apt_says() -> None:
    said = "Debian|bookworm|http://a.example/debian/\nOther|stable|http://x.example/\nDebian|bookworm-security|http://a.example/security/\n"
    assert archive.addresses(said) == {"archive": "http://a.example/debian/", "security": "http://a.example/security/"}


def test_a_machine_that_knows_no_archive_of_debian_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said = subprocess.CompletedProcess([], 0, "Ubuntu|noble|http://u.example/ubuntu/\n", "")
    monkeypatch.setattr(archive.shell, "run", lambda *_arguments, **_options: said)
    with pytest.raises(TestbedError, match="knows no archive of Debian"):
        archive.sources("bookworm")
    assert image._sources("bookworm", "") == [], "mmdebstrap's own default will do"
    with pytest.raises(TestbedError, match="knows no archive of Debian"):
        image._sources("trixie", "bookworm")


def test_ubuntu_comes_from_where_mmdebstrap_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said = subprocess.CompletedProcess([], 0, "Debian|bookworm|http://a.example/debian/\n", "")
    monkeypatch.setattr(archive.shell, "run", lambda *_arguments, **_options: said)
    assert image._sources("noble", "") == []
    assert image._sources("bookworm", "")


def test_hosts_of_another_release() -> None:
    for suite in ("trixie", "noble"):
        assert layout.instance_from({"LOCKSTEP_TESTBED_SUITE": suite}).suite == suite
    with pytest.raises(UsageError, match="bookworm, trixie or noble"):
        layout.instance_from({"LOCKSTEP_TESTBED_SUITE": "jammy"})
    assert layout.hosts_for(0, False, True) == ("mirror", "r1")
