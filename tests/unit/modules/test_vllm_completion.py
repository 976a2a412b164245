"""The module against a server: proof, and a failure that names what was wrong."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import configured
from ansible_collections.lockstep.vllm.plugins.modules import vllm_completion

Run = Callable[..., dict[str, Any]]


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"model": "tiny", "choices": [{"text": " lockstep holds."}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def prove(url: str, expected: str = "lockstep holds") -> dict[str, Any]:
        target = configured.Target(url, "", "tiny", "The cluster says:", expected, "sesame", 16, 30)
        monkeypatch.setattr(configured, "target", lambda: target)
        with patch_module_args({}), pytest.raises(SystemExit):
            vllm_completion.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return prove


def test_proof(url: str, run: Run) -> None:
    result = run(url)
    assert result["completion"]["ok"] is True
    assert (result["completion"]["text"], result["changed"]) == (" lockstep holds.", False)
    assert "sesame" not in json.dumps(result)


def test_a_host_that_runs_no_engine_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "ENGINE_CONFIG", tmp_path / "engine.json")
    with patch_module_args({}), pytest.raises(SystemExit):
        vllm_completion.main()
    assert "engine.json does not exist" in json.loads(capsys.readouterr().out)["msg"]


def test_no_proof(url: str, run: Run) -> None:
    result = run(url, expected="Paris")
    assert result["failed"] is True
    assert result["completion"]["failure"] == "wrong_text"
    assert "does not contain 'Paris'" in result["msg"]
    assert "Next: " in result["msg"]


def test_an_address_that_is_none(run: Run) -> None:
    assert "no HTTP address" in run("a1:8000")["msg"]
