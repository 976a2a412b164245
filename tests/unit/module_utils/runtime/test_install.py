"""The serving environment, built by the real uv from a wheelhouse of tiny wheels."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import install as runtime_install
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import state as runtime_state
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime.install import Environment, InstallError

UV = Path(sys.executable).with_name("uv")
LOCK = "torch==2.13.0 \\\n    --hash={torch}\nray==2.60.0\nvllm==0.32.0\n"


def wheel(folder: Path, name: str, version: str, code: str = "") -> None:
    """A distribution of one module."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


@pytest.fixture
def house(tmp_path):
    """Everything an installation needs: wheels, a lock, and an empty root."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, version in (
        ("torch", "2.13.0"),
        ("ray", "2.60.0"),
        ("vllm", "0.32.0"),
        ("vllm", "0.33.0"),
        ("plugin", "1.0"),
    ):
        wheel(wheels, name, version)
    (tmp_path / "lock.txt").write_text("# a comment\ntorch==2.13.0\nray==2.60.0\nvllm==0.32.0\n")
    return tmp_path


def environment(house: Path, **changed: object) -> Environment:
    given = {"lock": house / "lock.txt", "python": sys.executable, "wheelhouse": str(house / "wheels"), "uv": UV}
    return Environment(**{**given, **changed})  # type: ignore[arg-type]


def install(house: Path, check: bool = False, **changed: object) -> runtime_install.Installed:
    return runtime_install.install(environment(house, **changed), check=check, root=house / "root")


def renew(house: Path) -> None:
    (house / "lock.txt").write_text("torch==2.13.0\nray==2.60.0\nvllm==0.33.0\n")


def test_built_switched_and_then_left_alone(house):
    first = install(house)
    assert (first.changed, first.built, first.before) == (True, True, None)
    assert (first.state["ray"], first.state["vllm"], first.state["lock"]) == ("2.60.0", "0.32.0", first.digest)
    again = install(house)
    assert (again.changed, again.built, again.before) == (False, False, first.digest)


def test_check_mode_reports_and_builds_nothing(house):
    checked = install(house, check=True)
    assert checked.changed
    assert not (house / "root").exists()


def test_extras_belong_to_it(house):
    plain = install(house)
    extended = install(house, extra=("plugin==1.0",))
    assert extended.digest != plain.digest
    assert list((house / "root" / "current").glob("lib/*/site-packages/plugin.py"))


def test_the_one_before_stays_and_older_ones_go(house):
    first = install(house)
    renew(house)
    second = install(house)
    assert (second.before, second.removed) == (first.digest, ())
    third = install(house, extra=("plugin==1.0",))
    assert third.removed == (first.digest,)
    assert sorted(entry.name for entry in (house / "root").iterdir() if not entry.is_symlink()) == sorted(
        [second.digest, third.digest]
    )


def test_going_back_builds_nothing(house):
    first = install(house)
    old = (house / "lock.txt").read_text()
    renew(house)
    install(house)
    (house / "lock.txt").write_text(old)
    back = install(house)
    assert (back.changed, back.built, back.digest, back.state["vllm"]) == (True, False, first.digest, "0.32.0")


def test_half_an_environment_is_not_used(house):
    """As a killed run leaves it: the folder is there, its mark is not."""
    first = install(house)
    renew(house)
    digest = runtime_install.expected_digest(environment(house))
    shutil.copytree(house / "root" / first.digest, house / "root" / digest, symlinks=True)
    (house / "root" / digest / "lockstep.json").unlink()
    second = install(house)
    assert (second.built, second.state["vllm"]) == (True, "0.33.0")


def test_an_environment_that_cannot_be_imported_is_not_used(house):
    first = install(house)
    wheel(house / "wheels", "vllm", "0.34.0", code="raise ImportError('libnuma.so.1 is not there')")
    (house / "lock.txt").write_text("torch==2.13.0\nray==2.60.0\nvllm==0.34.0\n")
    with pytest.raises(InstallError, match="libnuma"):
        install(house)
    assert os.readlink(house / "root" / "current") == first.digest
    assert runtime_state.state(house / "root" / "current")["vllm"] == "0.32.0"


def test_wheel_that_is_not_in_the_wheelhouse(house):
    (house / "lock.txt").write_text("torch==2.13.0\nray==2.61.0\nvllm==0.32.0\n")
    with pytest.raises(InstallError, match="the wheelhouse lacks a wheel ") as failed:
        install(house)
    assert failed.value.stop.cause.startswith(
        "the wheelhouse lacks a wheel that the lock pins: fill it from the same lock. uv:"
    )
    assert failed.value.stop.next == "", "what is no command is none to type"


def test_hashes_are_demanded_where_the_lock_has_them(house):
    (house / "lock.txt").write_text(LOCK.format(torch="sha256:" + "0" * 64).replace("\nray", " \\\n\nray"))
    with pytest.raises(InstallError, match="hash"):
        install(house)


def test_python_that_is_not_there(house):
    with pytest.raises(InstallError, match=r"no python9\.9: install it, or set serving_runtime_python"):
        install(house, python="python9.9")


def test_environment_in_use_is_kept(house, monkeypatch):
    first = install(house)
    renew(house)
    install(house)
    monkeypatch.setattr(runtime_install, "_in_use", lambda folder: folder.name == first.digest)
    assert install(house, extra=("plugin==1.0",)).removed == ()


@pytest.mark.parametrize(
    ("lock", "extra", "python", "same"),
    [
        ("a==1\n", (), "3.11", True),
        ("# from elsewhere\n\n  a==1\n", (), "3.11", True),
        ("a==2\n", (), "3.11", False),
        ("a==1\n", ("b==1",), "3.11", False),
        ("a==1\n", (), "3.12", False),
    ],
)
def test_digest(lock, extra, python, same):
    assert (runtime_install.digest_of(lock, extra, python) == runtime_install.digest_of("a==1\n", (), "3.11")) is same


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"lock": "aa", "ray": "2.60.0", "torch": "2.13.0"}, []),
        ({"lock": None}, ["the environment in use is absent, the lock asks for aa", "ray is absent, the lock pins 2.60.0",
                          "torch is absent, the lock pins 2.13.0"]),
        ({"lock": "aa", "ray": "2.59.0", "torch": "2.13.0"}, ["ray is 2.59.0, the lock pins 2.60.0"]),
    ],
)  # fmt: skip
def test_problems(state, found):
    assert runtime_install.problems(state, "ray==2.60.0\ntorch==2.13.0\npy-spy==1\n", "aa") == found


@pytest.mark.parametrize(
    ("environments", "before", "stay"),
    [
        ({"new": 0}, None, {"new"}),
        ({"new": 0, "old": 5}, "old", {"new", "old"}),
        ({"new": 0, "old": 5, "older": 4}, "old", {"new", "old"}),
        ({"new": 0, "old": 5, "older": 4}, "new", {"new", "old"}),
        ({"new": 0, "old": 5}, "gone", {"new", "old"}),
    ],
)
def test_kept(environments, before, stay):
    assert runtime_install.kept(environments, "new", before) == stay


@pytest.mark.parametrize("name", ["cuda", "cpu"])
def test_locks_that_come_with_the_role_pin_what_is_needed(name):
    lock = Path(__file__).parents[4] / "roles" / "serving_runtime" / "files" / "locks" / f"{name}.txt"
    pinned = runtime_state.pins(lock.read_text())
    assert {"ray", "torch", "py-spy", "grpcio"} <= set(pinned)
    assert "--hash=" in lock.read_text()


def test_the_environment_that_a_rollback_goes_back_to_is_never_removed(house):
    """X serves; a run to Y dies, and the next goes to Z: a rollback then still finds X."""
    first = install(house)
    renew(house)
    second = install(house, extra=("plugin==1.0",))
    third = runtime_install.install(environment(house), root=house / "root", previous=first.digest)
    assert third.removed == ()
    assert {first.digest, second.digest, third.digest} == {
        each.name for each in (house / "root").iterdir() if not each.is_symlink() and not each.name.startswith(".")
    }
    again = install(house)
    assert again.removed == (first.digest,)


def test_a_lock_for_another_python_is_named_as_that() -> None:
    """uv 0.11 on Debian 13 (Python 3.13) with the CPU lock."""
    said = (Path(__file__).parents[2] / "fixtures/real-packages/debian13/uv-sync-cpu-lock.txt").read_text()
    error = runtime_install.explain(["uv", "pip", "sync", "--no-index"], said)
    assert "the lock was made for another Python than the host's; the lock has wheels for `cp311`" in str(error)
    assert "set serving_runtime_python, or serving_runtime_lock to one for this Python" in str(error)
