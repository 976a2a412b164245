"""Fingerprints as GnuPG states them, of keys that GnuPG made."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import openpgp
from tests.machine import PATIENCE


def gpg(home: Path, *arguments: str) -> bytes:
    return subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", *arguments],
        check=True, capture_output=True, timeout=PATIENCE,
    ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GnuPG home with an RSA key and an EdDSA key, both with a subkey."""
    folder = tmp_path_factory.mktemp("gpg")
    os.chmod(folder, 0o700)
    for kind, name in (("rsa2048", "one"), ("ed25519", "two")):
        gpg(folder, "--quick-generate-key", f"{name} <{name}@example.org>", kind, "sign", "never")
        key = stated(folder, name)[0]
        gpg(folder, "--quick-add-key", key, "rsa2048", "sign", "never")
    return folder


def stated(home: Path, name: str) -> list[str]:
    """Primary keys' fingerprints from gpg's own listing: the fpr line after each pub line."""
    lines = [line.split(":") for line in gpg(home, "--with-colons", "--list-keys", name).decode().splitlines()]
    return [after[9] for line, after in itertools.pairwise(lines) if line[0] == "pub"]


@pytest.mark.parametrize("options", [[], ["--armor"]])
@pytest.mark.parametrize("name", ["one", "two"])
def test_fingerprint_is_gpg_s(home: Path, name: str, options: list[str]) -> None:
    assert list(openpgp.fingerprints(gpg(home, *options, "--export", name))) == stated(home, name)


def test_two_keys_in_one_file(home: Path) -> None:
    wanted = {*stated(home, "one"), *stated(home, "two")}
    assert {*openpgp.fingerprints(gpg(home, "--export"))} == wanted
    armoured = [gpg(home, "--armor", "--export", name) for name in ("one", "two")]
    assert {*openpgp.fingerprints(b"".join(armoured))} == wanted


def test_a_changed_key_is_another(home: Path) -> None:
    key = bytearray(gpg(home, "--export", "one"))
    key[20] ^= 1
    assert list(openpgp.fingerprints(bytes(key))) != stated(home, "one")


@pytest.mark.parametrize(
    "junk",
    [
        b"", b"<html>404</html>", b"\x00" * 40, b"\xc6\xff\xff\xff\xff\xff", b"\x99\x02\x0d\x04", b"\xc6", b"\xc6\xe0", b"\x98\x01\x03",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!!\n-----END PGP PUBLIC KEY BLOCK-----\n",
    ],
)  # fmt: skip
def test_no_key_says_so(junk: bytes) -> None:
    with pytest.raises(openpgp.NoKey):
        openpgp.fingerprints(junk)


def test_cut_off_anywhere_is_no_crash(home: Path) -> None:
    key = gpg(home, "--export", "two")
    for end in range(len(key)):
        try:
            openpgp.fingerprints(key[:end])
        except openpgp.NoKey:
            continue
