"""A model is brought from a real server, by real tools: whole, checked, visible in one step, and begun anew where it was ended."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.model import manifest, stage, store, worker
from ansible_collections.lockstep.vllm.plugins.module_utils.model.codes import Result, Verb
from ansible_collections.lockstep.vllm.plugins.module_utils.model.request import Answer, Request
from ansible_collections.lockstep.vllm.plugins.module_utils.model.stage import Tools
from tests.machine import until
from tests.unit.module_utils.model.conftest import REPOSITORY, ROOT, TOKEN, WEIGHTS, Hub

ROOMY = 1 << 40


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """With the token, and room."""
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    return Tools(token, free=lambda _path: ROOMY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models"
    made.mkdir()
    return made


def sums(model: Path) -> str:
    """As ``sha256sum`` writes them."""
    paths = sorted(path for path in model.rglob("*") if path.is_file() and path.name[0] != ".")
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(model)}\n" for path in paths)


def asked(folder: Path, source: str, **more: Any) -> Request:
    return Request(Verb.STAGE, str(folder), "tiny", source, exclude=("original/*",), **more)


def of_hub(folder: Path, hub: Hub, **more: Any) -> Request:
    return asked(folder, f"hub:{REPOSITORY}", environment={"HF_ENDPOINT": hub.url}, **more)


def whole(folder: Path, answer: Answer) -> None:
    """The model is visible, with a manifest of it, and nothing is left of the way there."""
    assert answer.code is Result.DONE, answer
    assert answer.changed
    assert (folder / "tiny/model.safetensors").read_bytes() == WEIGHTS
    have = store.read_manifest(folder / "tiny")
    assert have is not None
    assert set(have.files) == {"config.json", "model.safetensors", "empty.txt"}
    assert have.files["model.safetensors"].sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert have.digest == answer.digest
    assert list((folder / ".staging").iterdir()) == []


def test_from_a_hub(folder: Path, hub: Hub, tools: Tools) -> None:
    answer = stage.stage(of_hub(folder, hub), tools)
    whole(folder, answer)
    again = stage.stage(of_hub(folder, hub), tools)
    assert (again.code, again.changed, again.digest) == (Result.DONE, False, answer.digest)


def test_from_a_web_server_with_its_checksums(folder: Path, hub: Hub, model: Path, tools: Tools) -> None:
    (model / manifest.SUMS).write_text(sums(model))
    whole(folder, stage.stage(asked(folder, hub.plain), tools))


def test_from_a_web_server_with_the_operators_checksums(folder: Path, hub: Hub, model: Path, tools: Tools) -> None:
    whole(folder, stage.stage(asked(folder, hub.plain, checksums=sums(model)), tools))


def test_from_a_folder_without_checksums(folder: Path, model: Path, tools: Tools) -> None:
    (model / "linked.json").symlink_to(model / "config.json")
    answer = stage.stage(asked(folder, str(model)), tools)
    assert answer.code is Result.DONE, answer
    assert (folder / "tiny/linked.json").read_text() == (model / "config.json").read_text()
    assert not (folder / "tiny/linked.json").is_symlink()


def test_the_same_model_has_the_same_digest_wherever_it_came_from(
    folder: Path, tmp_path: Path, hub: Hub, model: Path, tools: Tools
) -> None:
    (tmp_path / "other").mkdir()
    one = stage.stage(of_hub(folder, hub), tools)
    other = stage.stage(asked(tmp_path / "other", str(model)), tools)
    assert one.digest == other.digest


def test_a_dry_call_writes_nothing(folder: Path, hub: Hub, tools: Tools) -> None:
    answer = stage.stage(of_hub(folder, hub, dry=True), tools)
    assert (answer.code, answer.changed) == (Result.DONE, True)
    assert "1.0 MiB" in answer.reason
    assert list(folder.iterdir()) == []


def test_what_was_damaged_on_the_way_is_fetched_again(folder: Path, hub: Hub, tools: Tools) -> None:
    hub.spoil(damage={"model.safetensors": 1})
    whole(folder, stage.stage(of_hub(folder, hub), tools))


def test_what_is_damaged_twice_is_named_and_not_shown(folder: Path, hub: Hub, tools: Tools) -> None:
    hub.spoil(damage={"model.safetensors": 2})
    answer = stage.stage(of_hub(folder, hub), tools)
    assert answer.code is Result.DAMAGED
    assert "model.safetensors is damaged" in answer.reason
    assert not (folder / "tiny").exists()
    whole(folder, stage.stage(of_hub(folder, hub), tools))


def test_a_server_without_ranges(folder: Path, hub: Hub, tools: Tools) -> None:
    hub.spoil(no_ranges=True)
    (folder / ".staging/tiny").mkdir(parents=True)
    (folder / ".staging/tiny/model.safetensors.part").write_bytes(WEIGHTS[:1000])
    whole(folder, stage.stage(of_hub(folder, hub), tools))


@pytest.mark.parametrize("part", [WEIGHTS[:1000], WEIGHTS, WEIGHTS + b"more", b"another file" * 10])
def test_it_goes_on_with_what_is_there(folder: Path, hub: Hub, tools: Tools, part: bytes) -> None:
    (folder / ".staging/tiny").mkdir(parents=True)
    (folder / ".staging/tiny/model.safetensors.part").write_bytes(part)
    whole(folder, stage.stage(of_hub(folder, hub), tools))


def test_a_killed_worker_goes_on(folder: Path, hub: Hub, tools: Tools, tmp_path: Path) -> None:
    """SIGKILL in the middle of a file; the next call asks for the rest of it alone."""
    hub.spoil(bytes_per_second=100_000)
    credentials, runtime = tmp_path / "credentials", tmp_path / "runtime"
    credentials.mkdir()
    runtime.mkdir()
    request = of_hub(folder, hub)
    (credentials / worker.REQUEST).write_text(json.dumps({**as_json(request), "id": "1"}))
    (credentials / worker.TOKEN).write_text(TOKEN)
    library = tmp_path / "lib"
    library.mkdir()
    (library / "lockstep").symlink_to(ROOT / "plugins/module_utils")
    environment = {"PYTHONPATH": str(library), "CREDENTIALS_DIRECTORY": str(credentials),
                   "RUNTIME_DIRECTORY": str(runtime), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    started = subprocess.Popen([sys.executable, "-m", "lockstep.model.worker"], env=environment, start_new_session=True)
    part = folder / ".staging/tiny/model.safetensors.part"
    until(lambda: part.exists() and part.stat().st_size > 50_000, "a part of the file")
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    kept = part.stat().st_size
    assert 50_000 < kept < len(WEIGHTS)
    assert not (folder / "tiny").exists()

    hub.spoil()
    asked_for: list[int] = []
    again = dataclasses.replace(tools, tell=lambda _text: asked_for.append(part.stat().st_size if part.exists() else 0))
    whole(folder, stage.stage(request, again))
    assert kept in asked_for, "what was there before the kill was still there when fetching went on"


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"source": "hub:owner/other"}, Result.NO_SOURCE, "404"),
        ({"environment": {"HF_ENDPOINT": "http://127.0.0.1:1"}}, Result.NO_SOURCE, "does not answer"),
        ({"source": "ftp://x"}, Result.NO_SOURCE, "write hub:owner/name"),
        ({"exclude": ("*",)}, Result.NO_SOURCE, "holds no files"),
        ({"checksums": "0" * 64 + "  lacking.bin\n"}, Result.NO_SOURCE, "lacks lacking.bin"),
        ({"checksums": "0" * 64 + "  ../passwd\n"}, Result.NO_CHECKSUMS, "below the model's folder"),
    ],
)
def test_what_cannot_be_brought(
    folder: Path, hub: Hub, tools: Tools, change: dict[str, Any], code: Result, says: str
) -> None:
    answer = stage.stage(dataclasses.replace(of_hub(folder, hub), **change), tools)
    assert answer.code is code, answer
    assert says in answer.reason
    assert not (folder / "tiny").exists()


def test_another_token(folder: Path, hub: Hub, tools: Tools) -> None:
    answer = stage.stage(of_hub(folder, hub), dataclasses.replace(tools, token_file=None))
    assert answer.code is Result.REFUSED
    assert "401" in answer.reason


def test_no_room_is_said_before_anything_is_fetched(folder: Path, hub: Hub, tools: Tools) -> None:
    answer = stage.stage(of_hub(folder, hub), dataclasses.replace(tools, free=lambda _path: 1 << 30))
    assert answer.code is Result.NO_ROOM
    assert "1.0 GiB free" in answer.reason
    assert not (folder / ".staging/tiny").exists()


def test_a_folder_that_staging_did_not_make_is_left_alone(folder: Path, hub: Hub, tools: Tools) -> None:
    (folder / "tiny").mkdir()
    (folder / "tiny/mine").write_text("mine")
    answer = stage.stage(of_hub(folder, hub), tools)
    assert answer.code is Result.TAKEN
    assert (folder / "tiny/mine").exists()


def test_another_model_under_the_same_name_is_left_alone(folder: Path, hub: Hub, model: Path, tools: Tools) -> None:
    assert stage.stage(of_hub(folder, hub), tools).code is Result.DONE
    assert stage.stage(asked(folder, str(model)), tools).code is Result.TAKEN
    assert stage.stage(dataclasses.replace(of_hub(folder, hub), revision="v2"), tools).code is Result.TAKEN


@pytest.mark.parametrize("harm", ["changed", "shortened", "removed", "linked"])
def test_a_damaged_file_is_found_and_fetched_alone(
    folder: Path, hub: Hub, tools: Tools, tmp_path: Path, harm: str
) -> None:
    assert stage.stage(of_hub(folder, hub), tools).code is Result.DONE
    weights = folder / "tiny/model.safetensors"
    untouched = (folder / "tiny/config.json").stat().st_ino
    (tmp_path / "elsewhere").write_bytes(WEIGHTS)
    weights.chmod(0o600)
    if harm == "changed":
        with weights.open("r+b") as stream:
            stream.write(b"?")
    elif harm == "shortened":
        os.truncate(weights, 1000)
    else:
        weights.unlink()
    if harm == "linked":
        weights.symlink_to(tmp_path / "elsewhere")

    found = worker.verify(Request(Verb.VERIFY, str(folder), "tiny"), tools)
    assert found.code is Result.DAMAGED
    assert list(found.files) == ["model.safetensors"]
    assert f"{folder}/tiny/model.safetensors" in found.reason

    again = stage.stage(of_hub(folder, hub, hash_again=True), tools)
    assert again.code is Result.DONE, again
    assert again.brought <= len(WEIGHTS)
    assert worker.verify(Request(Verb.VERIFY, str(folder), "tiny"), tools).code is Result.DONE
    assert (folder / "tiny/config.json").stat().st_ino == untouched, "what was whole was not fetched"


def test_verify_without_a_manifest(folder: Path, tools: Tools) -> None:
    assert worker.verify(Request(Verb.VERIFY, str(folder), "tiny"), tools).code is Result.NOT_STAGED
    (folder / "tiny").mkdir()
    (folder / "tiny" / manifest.NAME).write_text("{}")
    assert worker.verify(Request(Verb.VERIFY, str(folder), "tiny"), tools).code is Result.DAMAGED


def test_a_planted_link_in_place_of_the_manifest_is_not_followed(folder: Path, tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(json.dumps({"source": "x", "files": {}}))
    (folder / "tiny").mkdir()
    (folder / "tiny" / manifest.NAME).symlink_to(tmp_path / "elsewhere")
    answer = worker.verify(Request(Verb.VERIFY, str(folder), "tiny"), tools)
    assert answer.code is Result.DAMAGED
    assert "cannot be read" in answer.reason
