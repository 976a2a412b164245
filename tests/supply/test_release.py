"""`make release` as its publisher types it, and what its readers check."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.security.throwaway_keys import publisher
from tests.supply.conftest import ROOT

GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@lockstep.invalid")


def git(folder: Path, *words: str) -> str:
    return subprocess.run([*GIT, *words], cwd=folder, check=True, text=True, capture_output=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit of the files of this checkout as they are, committed here or not."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    names = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    there = "\0".join(name for name in names if name and ((ROOT / name).is_file() or (ROOT / name).is_symlink()))
    packed = subprocess.run(
        ["tar", "--create", "--null", "--files-from=-"], cwd=ROOT, input=there.encode(), check=True, capture_output=True
    )
    subprocess.run(["tar", "--extract"], cwd=folder, input=packed.stdout, check=True)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")
    return folder


def test_a_release_says_what_it_was_made_of(checkout: Path, tmp_path: Path) -> None:
    output = tmp_path / "released"
    with publisher(tmp_path, "publisher@lockstep.invalid") as ours:
        command = [ROOT / "tools/release", "--key", ours.address, "--output", output, "--checkout", checkout]
        done = subprocess.run(command, env=ours.environment, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    name = "lockstep-vllm-0.1.0"
    assert sorted(path.name for path in output.iterdir()) == [
        "controller.cdx.json",
        f"{name}.MANIFEST.json.asc",
        f"{name}.provenance.json",
        f"{name}.provenance.json.asc",
        f"{name}.tar.gz",
        "serving-cpu.cdx.json",
        "serving-cuda.cdx.json",
    ]

    def gpgv(signature: str, signed: bytes) -> int:
        (tmp_path / "signed").write_bytes(signed)
        check = ["gpgv", "--keyring", ours.keyring, output / signature, tmp_path / "signed"]
        return subprocess.run(check, capture_output=True, check=False).returncode

    tarball = output / f"{name}.tar.gz"
    manifest = subprocess.run(
        ["tar", "--extract", "--to-stdout", "--file", tarball, "MANIFEST.json"], check=True, capture_output=True
    ).stdout
    written = (output / f"{name}.provenance.json").read_bytes()
    assert gpgv(f"{name}.MANIFEST.json.asc", manifest) == 0
    assert gpgv(f"{name}.provenance.json.asc", written) == 0
    assert gpgv(f"{name}.provenance.json.asc", written.replace(b"gitCommit", b"gitcommit")) != 0

    statement = json.loads(written)
    assert (statement["_type"], statement["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    published = {path.name: path.read_bytes() for path in output.iterdir() if "MANIFEST" not in path.name}
    published |= {"MANIFEST.json": manifest}
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    unsigned = {f"{name}.provenance.json", f"{name}.provenance.json.asc"}
    assert subjects == {
        file: hashlib.sha256(content).hexdigest() for file, content in published.items() if file not in unsigned
    }
    source, *locks = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["digest"] == {
        "gitCommit": git(checkout, "rev-parse", "HEAD"),
        "gitTree": git(checkout, "rev-parse", "HEAD^{tree}"),
    }
    assert {lock["name"]: lock["digest"]["sha256"] for lock in locks} == {
        name: hashlib.sha256((checkout / name).read_bytes()).hexdigest()
        for name in ("uv.lock", *(f"roles/serving_runtime/files/locks/{lock}.txt" for lock in ("cpu", "cuda")))
    }
    assert set(statement["predicate"]["runDetails"]["builder"]["version"]) == {"ansible-core", "gpg", "python", "uv"}
