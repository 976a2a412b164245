"""What decides about models, without a host: sources, lists of files, what may go, what is read into memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.typed import BadAnswer
from ansible_collections.lockstep.vllm.plugins.module_utils.model import (
    hub,
    manifest,
    prune,
    source,
    store,
    transfer,
    warm,
)
from ansible_collections.lockstep.vllm.plugins.module_utils.model.codes import Kind, Result, Verb
from ansible_collections.lockstep.vllm.plugins.module_utils.model.manifest import File
from ansible_collections.lockstep.vllm.plugins.module_utils.model.request import Request
from ansible_collections.lockstep.vllm.plugins.module_utils.model.transfer import Attempt, Item

SHA = "a" * 64
COMMIT = "c" * 40


@pytest.mark.parametrize(
    ("text", "kind", "place", "name"),
    [
        ("hub:owner/name", Kind.HUB, "owner/name", "hub:owner/name@main"),
        ("hub:owner/name@v1", Kind.HUB, "owner/name", "hub:owner/name@v1"),
        ("https://files.example.org/models/x/", Kind.HTTP, "https://files.example.org/models/x", None),
        ("http://files:8080/x", Kind.HTTP, "http://files:8080/x", None),
        ("/mnt/models/x/", Kind.PATH, "/mnt/models/x", None),
        ("controller:/models/x", Kind.CONTROLLER, "/models/x", "controller:/models/x"),
    ],
)
def test_sources(text: str, kind: Kind, place: str, name: str | None) -> None:
    found = source.parse(text)
    assert (found.kind, found.place, found.name) == (kind, place, name or place)


@pytest.mark.parametrize(
    "text",
    ["", "owner/name", "hub:", "hub:name", "hub:../..", "hub:a/b c", "ftp://x/y", "https://", "https://u:p@x/y",
     "https://x/y?z=1", "controller:models", "models/x", "s3://bucket/x"],
)  # fmt: skip
def test_what_is_no_source(text: str) -> None:
    with pytest.raises(source.BadSource):
        source.parse(text)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(source.BadSource) as raised:
        source.parse("https://me:secret@x/y")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../x", "a//b", "./a", ".", "a\nb", "a\\b", manifest.NAME, ".cache/x", ".git/x"],
)
def test_paths_that_no_file_of_a_model_has(path: str) -> None:
    assert manifest.path_problem(path)


@pytest.mark.parametrize("path", ["model.safetensors", "tokenizer/vocab.txt", ".gitattributes", "a b.txt", "été.txt"])
def test_paths_of_a_models_files(path: str) -> None:
    assert manifest.path_problem(path) is None


def test_lines_of_sha256sum() -> None:
    text = f"{SHA}  config.json\n{SHA.upper()} *./b/model.bin\n\n"
    assert manifest.checksums(text) == {"config.json": SHA, "b/model.bin": SHA}


@pytest.mark.parametrize(
    "text", ["", "config.json", f"{SHA} config.json", f"{SHA}  ../x", f"\\{SHA}  a\\nb", f"{SHA[1:]}  x"]
)
def test_what_sha256sum_never_wrote(text: str) -> None:
    with pytest.raises(BadAnswer):
        manifest.checksums(text)


def test_a_manifest_comes_back_as_it_was_written() -> None:
    made = manifest.Manifest("hub:a/b@main", {"x": File(3, SHA), "y/z": File(0, SHA)}, COMMIT, "2026-11-27T17:00:00Z")
    assert manifest.read(json.dumps(made.as_record())) == made


@pytest.mark.parametrize(
    "files",
    [{"../x": {"size": 1, "sha256": SHA}}, {"x": {"size": -1, "sha256": SHA}}, {"x": {"size": 1, "sha256": "no"}},
     {"x": {"size": 1}}, []],
)  # fmt: skip
def test_manifests_that_somebody_else_made(files: Any) -> None:
    with pytest.raises(BadAnswer):
        manifest.read(json.dumps({"source": "x", "files": files}))


def test_patterns_leave_files_out() -> None:
    paths = ["model.safetensors", "original/consolidated.00.pth", "original/params.json", "x.bin"]
    assert list(manifest.without(paths, ["original/*", "*.bin"])) == ["model.safetensors"]


def test_the_files_of_a_repository() -> None:
    """Shapes of huggingface_hub 2.4.0 (hf_api.py: RepoFile)."""
    answer = [
        {"type": "directory", "path": "original", "oid": COMMIT},
        {"type": "file", "path": "config.json", "size": 3, "oid": COMMIT},
        {"type": "file", "path": "m.safetensors", "size": 134, "oid": COMMIT, "lfs": {"oid": SHA, "size": 9, "pointerSize": 134}},
    ]  # fmt: skip
    assert hub.files(answer) == {"config.json": File(3, git=COMMIT), "m.safetensors": File(9, sha256=SHA)}


@pytest.mark.parametrize(
    "answer", [{}, [{"type": "file", "path": "../x", "size": 1}], [{"path": "x"}], [{"type": "file", "path": 1}]]
)
def test_what_is_no_tree(answer: Any) -> None:
    with pytest.raises(BadAnswer):
        hub.files(answer)


@pytest.mark.parametrize(
    ("link", "page"),
    [
        (None, None),
        ('<https://hub/api/models/a/b/tree/c?cursor=x>; rel="next"', "https://hub/api/models/a/b/tree/c?cursor=x"),
        ('<https://hub/x>; rel="prev"', None),
    ],
)
def test_the_next_page(link: str | None, page: str | None) -> None:
    assert hub.next_page(link) == page


@pytest.mark.parametrize(
    ("staged", "under_way", "keep", "models", "parts"),
    [
        (["a", "b"], [], ["a"], ["b"], []),
        (["a"], ["a", "a.json", "b", "b.json", ".removed-a"], ["a"], [], [".removed-a", "b", "b.json"]),
        ([], [], ["a"], [], []),
        (["a"], [], [], ["a"], []),
    ],
)
def test_what_may_go(
    staged: list[str], under_way: list[str], keep: list[str], models: list[str], parts: list[str]
) -> None:
    assert prune.unwanted(staged, under_way, keep) == (models, parts)


def staged(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    (folder / name / "x").write_text("x")
    store.write_manifest(folder / name, manifest.Manifest("s", {"x": File(1, SHA)}))
    (folder / name).chmod(0o550)


@pytest.mark.parametrize("dry", [True, False])
def test_prune_removes_what_staging_made_and_nobody_wants(tmp_path: Path, dry: bool) -> None:
    folder, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    for name in ("wanted", "old"):
        staged(folder, name)
    staged(elsewhere, "model")
    (folder / "operators").mkdir()
    (folder / "link").symlink_to(elsewhere / "model")
    (folder / ".staging/half").mkdir(parents=True)
    (folder / ".staging/half/x.part").write_text("y")
    answer = prune.prune(Request(Verb.PRUNE, str(folder), keep=("wanted",), dry=dry))
    assert (answer.code, answer.changed, answer.removed) == (Result.DONE, True, ("old",))
    left = {path.name for path in folder.iterdir()} - {".staging"}
    assert left == {"wanted", "operators", "link"} | ({"old"} if dry else set())
    assert [path.name for path in (folder / ".staging").iterdir()] == (["half"] if dry else [])
    assert (elsewhere / "model/x").exists()
    if not dry:
        again = prune.prune(Request(Verb.PRUNE, str(folder), keep=("wanted",)))
        assert (again.changed, again.removed) == (False, ())


GIB = 1 << 30


@pytest.mark.parametrize(
    ("size", "available", "fits"), [(80, 100, True), (90, 100, True), (91, 100, False), (1, 0, False)]
)
def test_what_does_not_fit_into_memory_is_not_read(size: int, available: int, fits: bool) -> None:
    assert (warm.why_not(size * GIB, available * GIB) is None) is fits


def test_warm_reads_all_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x" * 5000)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "blob")
    (folder / "file").write_bytes(b"y" * 70)
    answer = warm.warm(Request(Verb.WARM, "", path=str(folder)))
    assert (answer.code, answer.reason, answer.bytes) == (Result.DONE, "", 5070)


def test_warm_ends_at_its_deadline_and_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"y" * (3 * store.BLOCK))
    moments = iter(range(100))
    answer = warm.warm(Request(Verb.WARM, "", path=str(tmp_path), seconds=1), now=lambda: float(next(moments)))
    assert answer.code is Result.DONE
    assert "were read in 1 s" in answer.reason


def test_warm_says_why_it_did_not_read(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable:   4 kB\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/file").write_bytes(b"y" * 8192)
    answer = warm.warm(Request(Verb.WARM, "", path=str(tmp_path / "model")), meminfo=tmp_path / "meminfo")
    assert (answer.code, answer.changed) == (Result.DONE, False)
    assert "was not read: it has 8192 bytes" in answer.reason
    missing = warm.warm(Request(Verb.WARM, "", path=str(tmp_path / "none")), meminfo=tmp_path / "meminfo")
    assert "there is nothing at that path" in missing.reason


@pytest.mark.parametrize(
    ("attempt", "result"),
    [
        (Attempt(22, 401, ""), Result.REFUSED),
        (Attempt(22, 403, ""), Result.REFUSED),
        (Attempt(22, 404, ""), Result.NO_SOURCE),
        (Attempt(37, 0, ""), Result.NO_SOURCE),
        (Attempt(22, 503, ""), Result.FAILED),
        (Attempt(18, 200, ""), Result.FAILED),
        (Attempt(28, 0, ""), Result.FAILED),
    ],
)
def test_how_curl_ends(attempt: Attempt, result: Result) -> None:
    assert transfer.kind_of_failure(attempt) is result


def test_a_server_that_sends_less_and_less_is_asked_until_it_sends_nothing(tmp_path: Path) -> None:
    """An attempt that brought anything is followed by another; a few in a row that brought nothing end it."""
    sizes = iter([10, 20, 20, 20, 20, 20])
    pauses: list[float] = []

    def attempt(_item: Item, target: Path, _token: str | None) -> Attempt:
        target.touch()
        os.truncate(target, next(sizes))
        return Attempt(18, 200, "transfer closed with outstanding read data remaining")

    with pytest.raises(transfer.TransferError) as raised:
        transfer.fetch([Item("x", "http://x/x", File(30, SHA))], tmp_path, None, pauses.append, attempt)
    assert raised.value.result is Result.NO_SOURCE
    assert "outstanding read data" in str(raised.value)
    assert pauses == [1.0, 1.0, 2.0, 4.0, 8.0]
    assert (tmp_path / "x.part").stat().st_size == 20
