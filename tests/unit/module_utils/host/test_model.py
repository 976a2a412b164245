"""What the probe reads at the path of a model."""

from __future__ import annotations

import json
import os
import pwd
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult, run_command
from ansible_collections.lockstep.vllm.plugins.module_utils.host import model as host_model
from ansible_collections.lockstep.vllm.plugins.module_utils.host import probe as host_probe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose files are links to another folder, as in a cache of the hub, with one shard missing."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir(mode=0o755)
    shards = {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}
    for name, text in (
        ("config.json", "{}"),
        ("model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": shards})),
        ("m-1.safetensors", "x" * 300),
        ("tokenizer.json", "{}"),
    ):
        (blobs / name).write_text(text)
        (folder / name).symlink_to(blobs / name)
    (folder / "m-2.safetensors").symlink_to(blobs / "not fetched")
    return folder


def test_room_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    here = os.statvfs(tmp_path)
    found = host_model.model(str(tmp_path / "not" / "there"))
    assert found["kind"] == "absent"
    assert found["free_mib"] is not None
    assert abs(found["free_mib"] - (here.f_bavail * here.f_frsize >> 20)) < 4096


def test_a_folder(folder: Path) -> None:
    found = host_model.model(str(folder))
    assert found["kind"] == "folder"
    assert set(found["files"]) == {"config.json", "model.safetensors.index.json"}
    assert found["files"]["config.json"]["size"] == 2
    assert found["weights"] == {"m-1.safetensors": 300}
    assert found["missing"] == ["m-2.safetensors"]


def test_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    found = host_model.model(str(tmp_path / "m.gguf"))
    assert (found["kind"], found["weights"], found["files"]) == ("file", {"m.gguf": 4}, {})


@pytest.mark.parametrize("path", ["nothing", "m.gguf/below"])
def test_nothing(path: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert host_model.model(str(tmp_path / path))["kind"] == "absent"


def test_an_index_that_is_too_large_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_model, "LARGEST_READ", 10)
    found = host_model.model(str(folder))
    assert found["files"]["model.safetensors.index.json"]["sha256"] is None
    assert found["files"]["config.json"]["sha256"]


def test_a_file_system_that_hangs_becomes_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_model, "model", lambda path: host_model_hangs(path))
    preflight = host_probe.collect({"preflight": True, "model": "/srv/m"})["preflight"]
    assert preflight["model"] == {"error": "TimeoutError: /srv/m cannot be listed within 5 s: its file system hangs"}


real_model = host_model.model


def host_model_hangs(path: str) -> object:
    return real_model(path, lambda _argv, _deadline: CommandResult(None, timed_out=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try what another user can read")
@pytest.mark.parametrize(("mode", "can"), [(0o755, True), (0o700, False)])
def test_whether_the_engine_can_read_it(mode: int, can: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies in one that only its owner may enter
        (Path(folder) / "config.json").write_text("{}")
        Path(folder).chmod(mode)
        (readable,) = host_model.model(folder)["readable_by"].values()
    assert readable is can


def test_where_that_cannot_be_tried_nothing_is_said(folder: Path) -> None:
    def without_setpriv(argv: Sequence[str], deadline: float) -> CommandResult:
        return CommandResult(None) if argv[0] == "setpriv" else run_command(argv, deadline)

    assert host_model.model(str(folder), without_setpriv)["readable_by"] == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="reads as another user")
def test_what_another_user_may_have_put_there_is_read_as_that_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """He plants a link to a file that root alone may read: not even its checksum is learnt."""
    monkeypatch.setattr(host_model, "USER", "nobody")
    user = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(dir="/tmp") as outside:
        os.chmod(outside, 0o755)
        secret, folder = Path(outside, "secret"), Path(outside, "model")
        secret.write_text("{}")
        secret.chmod(0o600)
        folder.mkdir()
        (folder / "config.json").symlink_to(secret)
        (folder / "model.safetensors").write_text("x")
        as_root = host_model.model(str(folder))
        assert as_root["files"]["config.json"]["sha256"], "in a folder of root's, root reads"
        os.chown(folder, user.pw_uid, user.pw_gid)
        found = host_model.model(str(folder))
        assert found["files"]["config.json"]["sha256"] is None
        assert found["weights"] == {"model.safetensors": 1}


def test_what_staging_left_is_known_by_its_manifest(tmp_path: Path) -> None:
    made = {"source": "hub:a/b@main", "files": {
        "config.json": {"size": 2, "sha256": "a" * 64}, "m.safetensors": {"size": 9, "sha256": "b" * 64},
    }}  # fmt: skip
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / host_model.MANIFEST).write_text(json.dumps(made))
    staged = host_model.model(str(tmp_path))["staged"]
    assert staged is not None
    assert (staged["source"], staged["mib"], staged["lacking"]) == ("hub:a/b@main", 0, ["m.safetensors"])
    (tmp_path / host_model.MANIFEST).write_text("{")
    assert host_model.model(str(tmp_path))["staged"] is None
