"""`make release` as its publisher types it, and what its readers check."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.machine import PATIENCE
from tests.security.throwaway_keys import publisher
from tests.supply.conftest import ROOT

VERSION = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
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


def check(release: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run what docs/security.md tells readers to type, up to the first command that fails."""
    page = (ROOT / "docs/security.md").read_text()
    found = re.search(r"### Checking a release\n.*?```sh\n(.*?)```", page, re.DOTALL)
    assert found
    commands = re.sub(r"(?<=lockstep-vllm-)\d+\.\d+\.\d+", VERSION, found[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", commands],
        cwd=release,
        env={
            **environment,
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
            "ANSIBLE_HOME": str(folder / "home"),
        },
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_release_says_what_it_was_made_of(checkout: Path, tmp_path: Path) -> None:
    output = tmp_path / "released"
    with publisher(tmp_path, "publisher@lockstep.invalid") as ours:
        command = [ROOT / "tools/release", "--key", ours.address, "--output", output, "--checkout", checkout]
        done = subprocess.run(
            command, env=ours.environment, text=True, capture_output=True, timeout=PATIENCE, check=False
        )
    assert done.returncode == 0, done.stderr
    name = f"lockstep-vllm-{VERSION}"
    assert sorted(path.name for path in output.iterdir()) == [
        "controller.cdx.json",
        f"{name}.MANIFEST.json.asc",
        f"{name}.provenance.json",
        f"{name}.provenance.json.asc",
        f"{name}.tar.gz",
        "serving-cpu.cdx.json",
        "serving-cuda.cdx.json",
    ]

    (output / "publisher.gpg").write_bytes(ours.keyring.read_bytes())
    checked = check(output, tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"Successfully verified that checksums for 'lockstep.vllm:{VERSION}'" in checked.stdout

    written = (output / f"{name}.provenance.json").read_bytes()
    statement = json.loads(written)
    assert (statement["_type"], statement["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    named = [f"{name}.tar.gz", "MANIFEST.json", "controller.cdx.json", "serving-cpu.cdx.json", "serving-cuda.cdx.json"]
    assert {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]} == {
        file: hashlib.sha256((output / file).read_bytes()).hexdigest() for file in named
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

    # Whatever is changed on the way, the published commands say so.
    (output / "serving-cuda.cdx.json").write_text("{}")
    assert "serving-cuda.cdx.json: FAILED" in check(output, tmp_path).stdout
    (output / f"{name}.provenance.json").write_bytes(written.replace(b"gitCommit", b"gitcommit"))
    assert "BAD signature" in check(output, tmp_path).stderr
