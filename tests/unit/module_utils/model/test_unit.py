"""Root's part: the folder, the transient unit, and what is read of its answer. Nothing here needs systemd."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.model import unit, worker
from ansible_collections.lockstep.vllm.plugins.module_utils.model.codes import Result, Verb
from ansible_collections.lockstep.vllm.plugins.module_utils.model.request import Answer, Request

ME = pwd.getpwuid(os.getuid()).pw_name
NOBODY = "nobody"
REQUEST = Request(Verb.STAGE, "/srv/lockstep/models", "tiny", "hub:owner/tiny")


class Systemd:
    """systemctl and systemd-run: the unit is active for as many questions as it is given, then answers."""

    def __init__(self, active: int, answer: dict[str, object] | None, running: bool = False) -> None:
        self.left = active if running else 0
        self.active, self.answer = active, answer
        self.started: list[list[str]] = []

    def __call__(self, argv: Sequence[str], _deadline: float) -> CommandResult:
        if argv[0] == "systemd-run":
            self.started.append(list(argv))
            self.left = self.active
            return CommandResult(0)
        self.left -= 1
        if self.left < 0:
            request = unit.REQUESTS / unit.REQUEST_NAME
            if self.answer is not None and request.exists():
                ticket = json.loads(request.read_text())["id"]
                unit.RUNTIME.mkdir(exist_ok=True)
                (unit.RUNTIME / worker.ANSWER).write_text(json.dumps({"id": ticket, "answer": self.answer}))
            return CommandResult(0, f"Id={unit.UNIT}\nActiveState=inactive\n")
        return CommandResult(0, f"Id={unit.UNIT}\nActiveState=active\n")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "RUNTIME", tmp_path / "runtime")
    monkeypatch.setattr(unit, "REQUESTS", tmp_path / "request")


def no_sleep(_seconds: float) -> None:
    pass


def test_an_answer_comes_back() -> None:
    systemd = Systemd(2, Answer(Result.DONE, changed=True, digest="d", bytes=7).as_record())
    called = unit.call(unit.Call(REQUEST, "secret", 100), systemd, no_sleep)
    assert called.answer == Answer(Result.DONE, changed=True, digest="d", bytes=7)
    assert not list(unit.REQUESTS.iterdir()), "nothing of a request or token stays"
    line = " ".join(systemd.started[0])
    assert "secret" not in line
    assert "User=lockstep" in line
    assert "ReadWritePaths=/srv/lockstep/models" in line
    assert "RuntimeMaxSec=100" in line


@pytest.mark.parametrize(
    ("verb", "dry", "writes"),
    [(Verb.STAGE, False, True), (Verb.STAGE, True, False), (Verb.VERIFY, False, False), (Verb.PRUNE, False, True),
     (Verb.PRUNE, True, False), (Verb.WARM, False, False)],
)  # fmt: skip
def test_what_only_reads_may_write_nothing(verb: Verb, dry: bool, writes: bool) -> None:
    systemd = Systemd(0, Answer(Result.DONE).as_record())
    unit.call(unit.Call(Request(verb, "/srv/m", "x", dry=dry)), systemd, no_sleep)
    assert any("ReadWritePaths" in each for each in systemd.started[0]) is writes


def test_a_call_that_is_over_before_the_unit_goes_on_in_the_next() -> None:
    systemd = Systemd(3, Answer(Result.DONE).as_record())
    first = unit.call(unit.Call(REQUEST, seconds=0), systemd, no_sleep)
    assert first.answer.code is Result.DEADLINE
    second = unit.call(unit.Call(REQUEST, ticket=first.ticket), systemd, no_sleep)
    assert second.answer.code is Result.DONE
    assert len(systemd.started) == 1


def test_a_run_that_comes_later_waits_for_the_unit_of_one_that_died() -> None:
    systemd = Systemd(3, Answer(Result.DONE).as_record())
    unit.call(unit.Call(REQUEST, seconds=0), systemd, no_sleep)
    systemd.left = 3
    assert unit.call(unit.Call(REQUEST), systemd, no_sleep).answer.code is Result.DONE
    assert len(systemd.started) == 1


def test_another_request_waits_for_its_turn() -> None:
    systemd = Systemd(9, None)
    unit.call(unit.Call(REQUEST, seconds=0), systemd, no_sleep)
    other = unit.call(unit.Call(Request(Verb.VERIFY, "/srv/m", "x"), seconds=0), systemd, no_sleep)
    assert other.answer.code is Result.DEADLINE
    assert "at work on another request: stage tiny" in other.answer.reason
    assert other.ticket == ""


@pytest.mark.parametrize(
    "answer", [None, {"code": "no such"}, {"code": "done", "bytes": "many"}, {"code": "done", "more": 1}]
)
def test_an_answer_that_is_none_is_a_failure(answer: dict[str, object] | None) -> None:
    called = unit.call(unit.Call(REQUEST), Systemd(1, answer), no_sleep)
    assert called.answer.code is Result.FAILED
    assert "answer" in called.answer.reason


def test_an_answer_of_yesterday_is_not_taken() -> None:
    unit.RUNTIME.mkdir()
    (unit.RUNTIME / worker.ANSWER).write_text(json.dumps({"id": "0", "answer": Answer(Result.DONE).as_record()}))
    assert unit.call(unit.Call(REQUEST), Systemd(1, None), no_sleep).answer.code is Result.FAILED


def test_a_planted_link_in_place_of_the_answer_is_not_followed(tmp_path: Path) -> None:
    unit.RUNTIME.mkdir()
    (tmp_path / "secret").write_text("{}")
    (unit.RUNTIME / worker.ANSWER).symlink_to(tmp_path / "secret")
    answer = unit.call(unit.Call(REQUEST), Systemd(1, None), no_sleep).answer
    assert answer.code is Result.FAILED
    assert "cannot be used" in answer.reason


def test_the_folder_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "srv/models"
    if ME != "root":
        assert unit.make_folder(folder, user=ME)[1] is not None, "its parents belong to the same user"
        return
    assert unit.make_folder(folder, check=True, user=NOBODY) == (True, None)
    assert not folder.exists()
    assert unit.make_folder(folder, user=NOBODY) == (True, None)
    assert folder.stat().st_uid == pwd.getpwnam(NOBODY).pw_uid
    assert folder.stat().st_mode & 0o777 == 0o750
    assert unit.make_folder(folder, user=NOBODY) == (False, None)


@pytest.mark.skipif(ME != "root", reason="gives folders away")
@pytest.mark.parametrize("planted", ["link", "file", "root's", "below his"])
def test_a_folder_that_is_not_his_is_refused(tmp_path: Path, planted: str) -> None:
    """A link in place of the folder, or a parent in which the user could plant one: nothing is made or given away."""
    folder, elsewhere = tmp_path / "his/models", tmp_path / "elsewhere"
    folder.parent.mkdir()
    elsewhere.mkdir()
    if planted == "link":
        folder.symlink_to(elsewhere)
    elif planted == "file":
        folder.touch()
    elif planted == "root's":
        folder.mkdir()
    else:
        os.chown(folder.parent, pwd.getpwnam(NOBODY).pw_uid, -1)
    made, answer = unit.make_folder(folder, user=NOBODY)
    assert not made
    assert answer is not None
    assert answer.code is Result.NOT_OURS
    assert elsewhere.stat().st_uid == 0


def test_a_model_that_a_process_has_open_or_mapped_is_in_use(tmp_path: Path) -> None:
    for name in ("open", "mapped", "idle"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("x" * 5000)
    code = (
        f"import mmap, sys; a = open({str(tmp_path / 'open/x')!r}); b = open({str(tmp_path / 'mapped/x')!r}, 'rb');"
        "m = mmap.mmap(b.fileno(), 0, access=mmap.ACCESS_READ); b.close(); print('ready', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(["python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    try:
        assert unit.in_use(tmp_path) == {"open", "mapped"}
    finally:
        holder.communicate()
    assert unit.in_use(tmp_path) == set()


def test_models_of_the_engines_configuration_and_of_what_a_wave_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "ENGINE_CONFIG", tmp_path / "engine.json")
    monkeypatch.setattr(records, "PREVIOUS", tmp_path / "previous/record.json")
    folder = Path("/srv/lockstep/models")
    assert unit.configured(folder) == set()
    (tmp_path / "previous").mkdir()
    (tmp_path / "engine.json").write_text(json.dumps({"model": f"{folder}/new"}))
    (tmp_path / "previous/0").write_text(json.dumps({"model": f"{folder}/old"}))
    (tmp_path / "previous/record.json").write_text(
        json.dumps({"files": {str(tmp_path / "engine.json"): {"copy": "0"}}})
    )
    assert unit.configured(folder) == {"new", "old"}
    (tmp_path / "engine.json").write_text(json.dumps({"model": "owner/name"}))
    assert unit.configured(folder) == {"old"}
