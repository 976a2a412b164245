"""A model is sent in pieces by real shells, goes on where it was ended, and is staged by the worker as from any other source."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.model import stage, store
from ansible_collections.lockstep.vllm.plugins.module_utils.model.codes import Result, Verb
from ansible_collections.lockstep.vllm.plugins.module_utils.model.request import Request
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import upload

WEIGHTS = bytes(range(256)) * 100
SIZES = {"model.safetensors": len(WEIGHTS), "sub/it's one.json": 2, "empty": 0}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PIECE", 10_000)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "original"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "sub/it's one.json").write_text("{}")
    (folder / "empty").touch()
    (folder / "left out.bin").write_text("x")
    return folder


class Host:
    """A shell; its connection breaks after so many pieces."""

    def __init__(self, pieces: int = 1000) -> None:
        self.pieces = pieces

    def __call__(self, command: str, piece: bytes) -> tuple[int, bytes, bytes]:
        self.pieces -= 1
        if self.pieces < 0:
            return 255, b"", b"Connection reset by peer"
        done = subprocess.run(["sh", "-c", command], input=piece, capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr


def asked(folder: Path, model: Path) -> Request:
    files = upload.files_of(model, "", ["*.bin"])
    return Request(Verb.STAGE, str(folder), "tiny", f"controller:{model}", files=files)


def test_a_model_is_sent_and_goes_on_after_a_break(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    tools = stage.Tools(free=lambda _path: 1 << 40)
    request = asked(folder, model)
    first = stage.stage(request, tools)
    assert (first.code, dict(first.files)) == (Result.UPLOAD, {"model.safetensors": "0", "sub/it's one.json": "0"})
    staging = str(folder / ".staging/tiny")
    with pytest.raises(upload.UploadError) as raised:
        upload.send(model, staging, upload.missing(SIZES, first.files), Host(2), as_user="")
    assert "model.safetensors could not be sent beyond 20000 bytes: Connection reset by peer" in str(raised.value)

    second = stage.stage(request, tools)
    assert second.files["model.safetensors"] == "20000"
    upload.send(model, staging, upload.missing(SIZES, second.files), Host(), as_user="")
    last = stage.stage(request, tools)
    assert (last.code, last.changed) == (Result.DONE, True)
    assert (folder / "tiny/model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "tiny/sub/it's one.json").read_text() == "{}"
    have = store.read_manifest(folder / "tiny")
    assert have is not None
    assert set(have.files) == {"empty", "model.safetensors", "sub/it's one.json"}


def test_what_arrives_damaged_is_asked_for_again(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    tools = stage.Tools(free=lambda _path: 1 << 40)
    request = asked(folder, model)
    sent = upload.missing(SIZES, stage.stage(request, tools).files)
    upload.send(model, str(folder / ".staging/tiny"), sent, Host(), as_user="")
    part = folder / ".staging/tiny/model.safetensors.part"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    again = stage.stage(request, tools)
    assert (again.code, dict(again.files)) == (Result.UPLOAD, {"model.safetensors": "0"})


def test_a_piece_that_was_taken_already_is_not_appended_twice(tmp_path: Path, model: Path) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging/model.safetensors.part").write_bytes(WEIGHTS[:5])
    with pytest.raises(upload.UploadError):
        upload.send(model, str(tmp_path / "staging"), {"model.safetensors": 0}, Host(), as_user="")
    assert (tmp_path / "staging/model.safetensors.part").read_bytes() == WEIGHTS[:5]


@pytest.mark.parametrize(
    "asked",
    [
        {"../secret": "0"},
        {"left out.bin": "0"},
        {"empty": "0", "a link": "0"},
        {"model.safetensors": str(len(WEIGHTS) + 1)},
        {"model.safetensors": "-1"},
        {"model.safetensors": "٣"},
        {"model.safetensors": "9" * 5000},
        {"model.safetensors": None},
        {"model.safetensors": ["0"]},
        ["model.safetensors"],
        None,
        "",
    ],
    ids=repr,
)
def test_a_host_that_asks_for_what_it_was_not_offered_gets_nothing(model: Path, asked: object) -> None:
    """The folder lies on the controller, and holds what the operator left out, and links to anywhere."""
    (model / "a link").symlink_to("/etc/shadow")
    with pytest.raises(upload.UploadError) as raised:
        upload.missing(SIZES, asked)
    assert len(str(raised.value)) < 200


def test_the_operators_checksums_need_no_hashing(model: Path) -> None:
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    assert upload.files_of(model, f"{digest}  model.safetensors\n", []) == {
        "model.safetensors": {"size": len(WEIGHTS), "sha256": digest}
    }


def test_a_request_survives_its_journey(tmp_path: Path, model: Path) -> None:
    from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
    from ansible_collections.lockstep.vllm.plugins.module_utils.model import request

    made = dataclasses.replace(asked(tmp_path, model), exclude=("a", "b"))
    assert request.request(as_json(made)) == made
