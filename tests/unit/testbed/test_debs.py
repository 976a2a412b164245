"""Packages and repository, read back with Debian's own tools where they are at hand."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from testbed.lib import debs
from testbed.lib.driver_catalog import Package, packages

needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not installed")


def carrying(payload: str, version: str = "550.90.07") -> Package:
    return next(package for package in packages(version, "ubuntu2204") if package.payload == payload)


def test_the_same_package_is_the_same_bytes() -> None:
    assert debs.build(carrying("dkms-open")) == debs.build(carrying("dkms-open"))


@needs_dpkg
def test_dpkg_reads_name_version_relations_and_files(tmp_path: Path) -> None:
    deb = tmp_path / "x.deb"
    deb.write_bytes(debs.build(carrying("utils")))
    fields = subprocess.run(["dpkg-deb", "--field", deb], capture_output=True, text=True, check=True).stdout
    assert "Package: nvidia-utils-550\n" in fields
    assert "Depends: libnvidia-compute-550 (>= 550.90.07)\n" in fields
    assert "Conflicts: nvidia-utils, nvidia-utils-580\n" in fields
    listed = subprocess.run(["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True).stdout
    assert [
        line
        for line in listed.splitlines()
        if line.startswith("-rwxr-xr-x root/root") and "./usr/bin/nvidia-smi" in line
    ]


@pytest.mark.parametrize(
    "payload", ["compute", "utils", "persistenced", "fabricmanager", "dkms-open", "dkms-proprietary"]
)
def test_every_mark_in_a_payload_is_filled_in(payload: str) -> None:
    carried = debs.contents(carrying(payload))
    text = b"".join([data for data, _ in carried.files.values()] + list(carried.scripts.values()))
    assert b"@VERSION@" not in text
    assert b"@LICENSE@" not in text


def test_open_and_proprietary_modules_differ_in_their_licence() -> None:
    assert b"license=Dual MIT/GPL" in debs.contents(carrying("dkms-open")).scripts["postinst"]
    assert b"license=NVIDIA" in debs.contents(carrying("dkms-proprietary")).scripts["postinst"]


@pytest.mark.parametrize(("target", "pin"), [("590.48.01", "Pin: version 590.48.01-*"), ("590", "Pin: version 590.*")])
def test_a_pinning_package_pins_its_version_or_branch(target: str, pin: str) -> None:
    text, _ = debs.contents(carrying(f"pin:{target}", "590.48.01")).files[
        "/etc/apt/preferences.d/nvidia-driver-pinning"
    ]
    assert pin in text.decode()


def test_release_covers_the_index_by_sha256() -> None:
    listing = debs.index([(carrying("utils"), "u.deb", b"12345")]).encode()
    text = debs.release({"Packages": listing}, "label")
    assert f" {hashlib.sha256(listing).hexdigest()} {len(listing):>8} Packages\n" in text
    assert "Filename: ./u.deb\nSize: 5\n" in listing.decode()


@pytest.mark.skipif(not shutil.which("gpg"), reason="gpg is not installed")
def test_a_published_repository_is_signed_by_the_key_of_its_keyring(tmp_path: Path) -> None:
    signer = debs.Signer(tmp_path / "k")
    checksum = debs.publish(tmp_path / "nvidia", signer)
    keyring = tmp_path / "nvidia" / debs.KEYRING
    assert checksum == hashlib.sha256(keyring.read_bytes()).hexdigest()
    place = tmp_path / "nvidia" / "ubuntu2204" / "x86_64"
    verify = ["gpgv", "--keyring", str(keyring), str(place / "InRelease")]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 0
    (place / "InRelease").write_text((place / "InRelease").read_text().replace("Origin: NVIDIA", "Origin: someone"))
    assert subprocess.run(verify, capture_output=True, check=False).returncode != 0
