"""A release that somebody changed on the way is not taken for ours. Real gpg, real ansible-galaxy, no network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.security.galaxy_server import offering
from tests.security.throwaway_keys import Publisher, publisher
from tests.unit.tools.scripts import ROOT, script

release = script("release")
GALAXY = Path(sys.executable).with_name("ansible-galaxy")
CHANGED = "plugins/module_utils/core/stop.py"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with publisher(tmp_path_factory.mktemp("ours"), "publisher@lockstep.invalid") as made:
        yield made


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with publisher(tmp_path_factory.mktemp("another"), "publisher@lockstep.invalid") as made:
        yield made


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit of a part of this collection."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("galaxy.yml", "README.md", "meta/runtime.yml", CHANGED):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".gitignore").write_text("secret*\n")
    who = ("-c", "user.name=t", "-c", "user.email=t@lockstep.invalid")
    for words in (("init", "--quiet"), ("add", "--all"), (*who, "commit", "--quiet", "--message", "all")):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    return folder


def galaxy(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ansible-galaxy where nothing of this checkout or its user is found."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "GNUPG"))}
    return subprocess.run(
        [GALAXY, "collection", *words],
        env={**environment, "ANSIBLE_HOME": str(folder / "home")},
        cwd=folder,
        text=True,
        capture_output=True,
        check=False,
    )


@dataclass(frozen=True)
class Installed:
    """A collection as it was downloaded and installed, and the signature that came beside it."""

    path: Path
    signature: Path

    def verify(self, *signed: str | Path) -> subprocess.CompletedProcess[str]:
        return galaxy(self.path, "verify", "--offline", "-p", self.path, *signed, "lockstep.vllm")

    def verify_signature_of(self, who: Publisher) -> subprocess.CompletedProcess[str]:
        return self.verify("--keyring", who.keyring, "--signature", f"file://{self.signature}")

    @property
    def collection(self) -> Path:
        return self.path / "ansible_collections/lockstep/vllm"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, checkout: Path, ours: Publisher) -> tuple[Path, Path]:
    """The tarball and the signature of its MANIFEST.json."""
    folder = tmp_path_factory.mktemp("released")
    tarball, signature = release.build(checkout, folder), folder / "MANIFEST.json.asc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(ours.home))
        release.sign(release.manifest(tarball), signature, release.fingerprint(ours.address))
    return tarball, signature


@pytest.fixture
def installed(tmp_path: Path, released: tuple[Path, Path]) -> Installed:
    tarball, signature = released
    made = Installed(tmp_path, signature)
    made.collection.mkdir(parents=True)
    shutil.unpack_archive(tarball, made.collection, filter="data")
    return made


def test_what_was_published_passes(installed: Installed, ours: Publisher) -> None:
    done = installed.verify_signature_of(ours)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Successfully verified that checksums for 'lockstep.vllm:" in done.stdout


def change(installed: Installed) -> None:
    with (installed.collection / CHANGED).open("a") as file:
        file.write("import os\n")


def test_a_changed_file_fails_and_is_named(installed: Installed, ours: Publisher) -> None:
    change(installed)
    done = installed.verify_signature_of(ours)
    assert done.returncode != 0
    assert CHANGED in done.stdout


def test_a_changed_file_with_a_manifest_to_match_fails(installed: Installed, ours: Publisher) -> None:
    """Whoever changes a release changes its checksums too: only the signature is beyond them."""
    change(installed)
    files, manifest = installed.collection / "FILES.json", installed.collection / "MANIFEST.json"
    listed = json.loads(files.read_text())
    (entry,) = [entry for entry in listed["files"] if entry["name"] == CHANGED]
    entry["chksum_sha256"] = hashlib.sha256((installed.collection / CHANGED).read_bytes()).hexdigest()
    files.write_text(json.dumps(listed))
    content = json.loads(manifest.read_text())
    content["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(files.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content))
    assert installed.verify().returncode == 0, "without a signature nothing tells"
    done = installed.verify_signature_of(ours)
    assert done.returncode != 0
    assert "Signature verification failed for 'lockstep.vllm'" in done.stdout


def test_another_key_of_the_same_name_fails(installed: Installed, another: Publisher) -> None:
    done = installed.verify_signature_of(another)
    assert done.returncode != 0
    assert "Signature verification failed for 'lockstep.vllm'" in done.stdout


@pytest.mark.parametrize("trusted", ["ours", "another"])
def test_from_a_server_nothing_is_installed_that_we_did_not_sign(
    tmp_path: Path, released: tuple[Path, Path], ours: Publisher, another: Publisher, trusted: str
) -> None:
    tarball, signature = released
    keyring = {"ours": ours, "another": another}[trusted].keyring
    version = tarball.name.removesuffix(".tar.gz").rpartition("-")[2]
    with offering(tarball, version) as server:
        signed = ("--keyring", keyring, "--signature", f"file://{signature}")
        done = galaxy(tmp_path, "install", "-s", server.url, *signed, "-p", tmp_path, f"lockstep.vllm:{version}")
    code = tmp_path / "ansible_collections/lockstep/vllm" / CHANGED
    if trusted == "ours":
        assert (done.returncode, code.is_file()) == (0, True), done.stdout + done.stderr
    else:
        assert (done.returncode, code.is_file()) == (1, False), done.stdout + done.stderr
        assert "Not installing lockstep.vllm because GnuPG signature verification failed" in done.stderr


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "no key is named, and nothing is released unsigned"),
        ("nobody@lockstep.invalid", "0 secret keys of gpg are named nobody@lockstep.invalid"),
    ],
)
def test_nothing_is_released_unsigned(
    ours: Publisher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str, reason: str
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(ours.home))
    assert release.main(["--key", key]) == 1
    said = capsys.readouterr().err
    assert reason in said
    assert "Next: " in said


def test_a_key_whose_public_half_alone_is_here_is_refused(
    ours: Publisher, another: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    another.gpg("--import", ours.keyring)
    monkeypatch.setenv("GNUPGHOME", str(another.home))
    with pytest.raises(release.Refused, match="0 secret keys"):
        release.fingerprint(ours.gpg("--with-colons", "--list-keys").decode().split("fpr:::::::::")[1].split(":")[0])


def test_what_is_not_committed_is_refused_and_what_git_ignores_is_left_out(
    checkout: Path, released: tuple[Path, Path], tmp_path: Path
) -> None:
    (checkout / "plugins/secrets.py").write_text("KEY = 1\n")
    release.refuse_uncommitted(checkout)
    listed = subprocess.run(
        ["tar", "--list", "--file", release.build(checkout, tmp_path)], text=True, capture_output=True, check=True
    ).stdout
    assert CHANGED in listed
    assert "secret" not in listed
    (checkout / "plugins/new.py").touch()
    with pytest.raises(release.Refused, match=r"(?s)\?\? plugins/new\.py.*Next: git status"):
        release.refuse_uncommitted(checkout)
    (checkout / "plugins/new.py").unlink()
