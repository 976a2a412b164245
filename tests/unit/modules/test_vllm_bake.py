"""The module against a server that is watched: it passes, ends early where it is bad, and keeps what was before."""

from __future__ import annotations

import functools
import http.server
import json
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.lockstep.vllm.plugins.module_utils.core import polling, records
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import completion, configured
from ansible_collections.lockstep.vllm.plugins.module_utils.host.settings_changes import SettingsChange
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import bake
from ansible_collections.lockstep.vllm.plugins.modules import vllm_bake

SERVER: dict[str, Any] = {}


class Server(http.server.BaseHTTPRequestHandler):
    """vLLM and its supervisor in one: SERVER has how it is."""

    def do_GET(self) -> None:
        if self.path == "/ready":
            state = {
                "phase": "serving",
                "layout": "tp1",
                "pid": 7,
                "restarts": SERVER["restarts"],
                "reason": "starting",
            }
            records.write(records.ENGINE_STATE, state)
            return self.answer(200 if SERVER["ready"] else 503, "{}")
        done = SERVER["done"]
        self.answer(200, f'vllm:request_success_total{{engine="0",finished_reason="stop"}} {float(done)}\n')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        SERVER["done"] += 1
        SERVER["now"] += SERVER["pause"]
        self.answer(200, json.dumps({"model": "tiny", "choices": [{"text": " lockstep holds."}]}))

    def answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


class Clock:
    """Time that passes only between two samples, and while SERVER answers; it becomes ``then`` when time first passes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.then: dict[str, Any] = {}

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        SERVER.update(self.then)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    mine = Clock()
    monkeypatch.setattr(completion, "time", types.SimpleNamespace(monotonic=lambda: SERVER["now"]))
    monkeypatch.setattr(polling, "poll", functools.partial(polling.poll, clock=mine, sleep=mine.sleep))
    return mine


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(bake, "BEFORE", tmp_path / "before.json")
    monkeypatch.setattr(records, "DRIVER", tmp_path / "driver.json")
    monkeypatch.setattr(records, "ENGINE_STATE", tmp_path / "engine.json")
    SERVER.update(ready=True, restarts=0, done=0, now=0.0, pause=0.02)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def run(capsys: pytest.CaptureFixture[str], url: str, state: str, **arguments: Any) -> dict[str, Any]:
    target = configured.Target(url, url, "tiny", "The cluster says:", "lockstep holds", None, 16, 60)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(configured, "target", lambda: target)
        with patch_module_args({"state": state, **arguments}), pytest.raises(SystemExit):
            vllm_bake.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_a_good_replica_is_watched_to_the_end(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, url, "recorded")["changed"] is True
    result = run(capsys, url, "watched", seconds=1)
    assert result["bake"]["causes"] == []
    assert result["bake"]["before_at"]
    assert "too few to compare" in result["lockstep_event"]["text"]
    assert result["bake"]["seconds"] >= 1


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ({"ready": False}, "not ready: starting"),
        ({"pause": 0.5}, "own completions took 0.5"),
        ({"restarts": 1}, "was restarted"),
    ],
    ids=["not ready", "slow", "restarted"],
)
def test_a_bad_one_is_not_watched_to_the_end(
    url: str, clock: Clock, capsys: pytest.CaptureFixture[str], fault: dict[str, Any], cause: str
) -> None:
    run(capsys, url, "recorded")
    if "restarts" in fault:
        clock.then = fault
    else:
        SERVER.update(fault)
    result = run(capsys, url, "watched", seconds=60)
    assert clock.now < 40
    assert result["failed"] is True
    assert cause in result["msg"]
    assert "Next: journalctl" in result["msg"]


def test_what_is_amid_a_change_is_not_what_was_before(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, url, "recorded")
    kept = bake.BEFORE.read_text()
    records.write(records.DRIVER, {"verified": None, "change": {"from": None, "to": {"version": "2"}}, "roll": None})
    again = run(capsys, url, "recorded")
    assert (again["changed"], again["recorded_at"]) == (False, first["recorded_at"])
    SERVER["ready"] = False
    assert run(capsys, url, "recorded")["changed"] is False
    assert bake.BEFORE.read_text() == kept


def test_what_runs_on_half_changed_settings_is_not_what_was_before(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(capsys, url, "recorded")
    changed = SettingsChange(files=("/etc/lockstep/engine.json",))
    monkeypatch.setattr(vllm_bake.previous_settings, "difference", lambda: changed)
    again = run(capsys, url, "recorded")
    assert (again["changed"], again["recorded_at"]) == (False, first["recorded_at"])


def test_a_damaged_record_is_reported(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    bake.BEFORE.write_text("{}")
    result = run(capsys, url, "watched", seconds=1)
    assert result["failed"] is True
    assert "before.json" in result["msg"]
