"""The repository and key of a host: what is declared before what the table says."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import keyring
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import nvidia_repository as repositories
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.repository_access import Access
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.transaction import Declared

TABLE = data_tables.read("nvidia_repositories")
CUDA = "https://developer.download.nvidia.com/compute/cuda/repos"
OLD, TRIXIE = "EB693B3035CD5710E231E123A4B469963BF863CC", "02182E60104FCDC26EAE1B8597A5D4CB8793F200"
MIRROR = "https://mirror.example.org/cuda/debian12"


def test_every_row_names_its_sources() -> None:
    for row in TABLE:
        assert row["url"].startswith(f"{CUDA}/{row['distribution']}{row['version'].replace('.', '')}/x86_64/")
        assert row["date"]
        assert row["key"][:-4].upper() in row.get("fingerprint", row["key"][:-4].upper()), (
            "a key is named by its fingerprint's end"
        )
        if "fingerprint" in row:
            assert re.fullmatch("[0-9A-F]{40}", row["fingerprint"])
            owners = {source.split("/")[3] for source in row["sources"]}
            assert len(owners) >= 2, "two independent sources, or the operator states it"


@pytest.mark.parametrize(
    ("system", "declared", "wanted"),
    [
        # the distribution chooses
        (("Debian", "12.9"), {}, (f"{CUDA}/debian12/x86_64/", f"{CUDA}/debian12/x86_64/3bf863cc.pub", None, OLD)),
        (("debian", "12"), {}, (f"{CUDA}/debian12/x86_64/", f"{CUDA}/debian12/x86_64/3bf863cc.pub", None, OLD)),
        (("Debian", "13"), {}, (f"{CUDA}/debian13/x86_64/", f"{CUDA}/debian13/x86_64/8793F200.pub", None, TRIXIE)),
        (("Ubuntu", "22.04"), {}, (f"{CUDA}/ubuntu2204/x86_64/", f"{CUDA}/ubuntu2204/x86_64/3bf863cc.pub", None, OLD)),
        (("ubuntu", "24.04"), {}, (f"{CUDA}/ubuntu2404/x86_64/", f"{CUDA}/ubuntu2404/x86_64/3bf863cc.pub", None, OLD)),
        # too few sources: the operator states the fingerprint
        (("ubuntu", "26.04"), {}, (f"{CUDA}/ubuntu2604/x86_64/", f"{CUDA}/ubuntu2604/x86_64/60DF8A40.pub", None, None)),
        (("ubuntu", "26.04"), {"keyring_fingerprint": "F"}, (f"{CUDA}/ubuntu2604/x86_64/", f"{CUDA}/ubuntu2604/x86_64/60DF8A40.pub", None, "F")),
        # not in the table
        (("ubuntu", "20.04"), {}, (None, None, None, None)),
        (("rocky", "9.4"), {}, (None, None, None, None)),
        ((None, None), {}, (None, None, None, None)),
        # a mirror needs its address alone, and never gets NVIDIA's
        (("debian", "12"), {"source": "mirror", "repository_url": MIRROR}, (MIRROR, f"{MIRROR}/3bf863cc.pub", None, OLD)),
        (("debian", "12"), {"source": "mirror"}, (None, None, None, None)),
        # a key of the operator's is known by what the operator says of it
        (("debian", "12"), {"keyring_url": "https://k/x.gpg"}, (f"{CUDA}/debian12/x86_64/", "https://k/x.gpg", None, None)),
        (("debian", "12"), {"keyring_url": "https://k/x.gpg", "keyring_sha256": "ab"}, (f"{CUDA}/debian12/x86_64/", "https://k/x.gpg", "ab", None)),
        (("debian", "12"), {"keyring_sha256": "ab"}, (f"{CUDA}/debian12/x86_64/", f"{CUDA}/debian12/x86_64/3bf863cc.pub", "ab", None)),
        # the distribution's archive needs none
        (("debian", "12"), {"source": "debian"}, (None, None, None, None)),
        (("debian", "12"), {"source": "verify"}, (None, None, None, None)),
    ],
)  # fmt: skip
def test_resolve(
    system: tuple[str | None, str | None], declared: dict[str, Any], wanted: tuple[str | None, ...]
) -> None:
    found = repositories.resolve({"source": "nvidia", **declared}, TABLE, *system)
    assert tuple(found[name] for name in repositories.FIELDS) == wanted


DECLARED = Declared("580.95.05", repository_url="https://r/", keyring_url="https://r/k.pub", keyring_fingerprint=OLD)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({}, None),
        ({"keyring_fingerprint": None}, "nvidia_driver_keyring_fingerprint or nvidia_driver_keyring_sha256"),
        ({"keyring_fingerprint": None, "keyring_sha256": "ab"}, None),
        ({"keyring_url": None}, "nvidia_driver_keyring_url"),
        ({"repository_url": None}, "nvidia_driver_repository_url"),
    ],
)
def test_missing(changed: dict[str, Any], named: str | None) -> None:
    found = keyring.missing(Declared.parse({**vars(DECLARED), **changed}))
    assert [named in problem.cause for problem in found if named] == ([True] if named else [])


def test_key_that_is_no_key_is_named() -> None:
    _key, wrong = keyring.fetch(DECLARED, lambda _url, _deadline, _access: b"<html>not found</html>")
    assert "no OpenPGP" in wrong[0].cause
    assert "https://r/k.pub" in wrong[0].cause


def test_key_installed_already_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring.openpgp, "fingerprints", lambda key: (OLD,) if key == b"key" else ("other",))
    installed = tmp_path / "k.asc"
    installed.write_bytes(b"key")

    def unreachable(url: str, _deadline: float, _access: Access) -> bytes:
        raise OSError(f"{url} is out of reach")

    assert keyring.sha256(DECLARED, installed, unreachable) == (hashlib.sha256(b"key").hexdigest(), [])
    installed.write_bytes(b"another")
    assert "out of reach" in keyring.sha256(DECLARED, installed, unreachable)[1][0].cause


def test_another_key_than_expected_is_refused_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring.openpgp, "fingerprints", lambda _key: (TRIXIE,))
    wrong = keyring.problems(DECLARED, b"key")
    assert TRIXIE in wrong[0].cause
    assert OLD in wrong[0].cause


def test_a_second_key_beside_the_one_meant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """apt would take what either of them signs."""
    monkeypatch.setattr(keyring.openpgp, "fingerprints", lambda _key: (OLD, TRIXIE))
    assert keyring.problems(DECLARED, b"key")
    monkeypatch.setattr(keyring.openpgp, "fingerprints", lambda _key: (OLD,))
    assert not keyring.problems(DECLARED, b"key")
