"""What root installs on a host: nothing that its lock does not name by hash, whoever holds the mirror. Real uv, no network."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from ansible.errors import AnsibleError

from ansible_collections.lockstep.vllm.plugins.lookup import controller_uv
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import install as runtime_install
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime.install import Environment, InstallError

UV = Path(sys.executable).with_name("uv")
TOOL = """
import pathlib
pathlib.Path({mark!r}).write_text("ran")
def build_wheel(folder, settings=None, metadata=None):
    raise SystemExit("it ran")
"""


def sdist(folder: Path, name: str) -> Path:
    """A source distribution whose build back end is ``buildtool``."""
    path = folder / f"{name}-1.0.tar.gz"
    backend = '[build-system]\nrequires = ["buildtool"]\nbuild-backend = "buildtool"\n'
    project = f'[project]\nname = "{name}"\nversion = "1.0"\n'
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    with tarfile.open(path, "w:gz") as archive:
        for inside, text in (("pyproject.toml", backend + project), ("PKG-INFO", about)):
            data = text.encode()
            member = tarfile.TarInfo(f"{name}-1.0/{inside}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def wheel(folder: Path, name: str, code: str) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def environment(tmp_path: Path, lock: str, **changed: object) -> Environment:
    (tmp_path / "lock.txt").write_text(lock)
    given = {"lock": tmp_path / "lock.txt", "python": sys.executable, "wheelhouse": str(tmp_path / "wheels"), "uv": UV}
    return Environment(**{**given, **changed})  # type: ignore[arg-type]


def test_a_source_distribution_is_not_built_whatever_its_hash(tmp_path: Path) -> None:
    """Its build tool would be fetched without any hash, and run as root."""
    wheels, mark = tmp_path / "wheels", tmp_path / "mark"
    wheels.mkdir()
    digest = hashlib.sha256(sdist(wheels, "innocent").read_bytes()).hexdigest()
    wheel(wheels, "buildtool", TOOL.format(mark=str(mark)))
    with pytest.raises(InstallError):
        runtime_install.install(
            environment(tmp_path, f"innocent==1.0 --hash=sha256:{digest}\n"), root=tmp_path / "root"
        )
    assert not mark.exists(), "code of whoever holds the mirror ran"


LOCKED = f"torch==2.13.0 --hash=sha256:{'0' * 64}\n"


@pytest.mark.parametrize(
    ("lock", "changed", "reason"),
    [
        (LOCKED, {"extra": ("plugin==1.0",)}, "plugin==1.0 without a hash"),
        (
            "torch==2.13.0\n",
            {"wheelhouse": "http://mirror.example/wheels/"},
            "no hashes, and packages would come over http",
        ),
        ("torch==2.13.0\n", {"wheelhouse": None, "index_url": "http://index.example/"}, "no hashes, and packages"),
    ],
)
def test_what_is_not_checked_is_refused(tmp_path: Path, lock: str, changed: dict[str, object], reason: str) -> None:
    with pytest.raises(InstallError, match=reason):
        runtime_install.install(environment(tmp_path, lock, **changed), root=tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_the_uv_that_travels_is_the_one_that_the_lock_brought(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(controller_uv.checked_uv())
    assert path.name == "uv"
    monkeypatch.setattr(controller_uv, "_sha256", lambda _path: b"another")
    with pytest.raises(AnsibleError, match=r"is not the file that the package uv \S+ brought.*Next: "):
        controller_uv.checked_uv()


@pytest.mark.parametrize(
    "changed",
    [{"wheelhouse": "https://me:sesame@mirror/"}, {"wheelhouse": None, "index_url": "https://me:sesame@index/"}],
)
def test_credentials_of_an_index_are_in_no_argument(tmp_path: Path, changed: dict[str, object]) -> None:
    made = environment(tmp_path, LOCKED, extra=(LOCKED.strip(),), **changed)
    for argv in runtime_install.commands(made, LOCKED, tmp_path, tmp_path):
        assert not [word for word in argv if "sesame" in word]
    assert "sesame" in "".join(runtime_install.sources(made).values())
