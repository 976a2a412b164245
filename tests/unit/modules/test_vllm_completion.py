"""The module against a server: proof, and a failure that says what was wrong."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.lockstep.vllm.plugins.modules import vllm_completion


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


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args({"model": "tiny", "prompt": "The cluster says:", **arguments}), pytest.raises(SystemExit):
        vllm_completion.main()
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_proof(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, url=url, expected="lockstep holds", api_key="secret")
    assert told["completion"]["ok"] is True
    assert (told["completion"]["text"], told["changed"]) == (" lockstep holds.", False)
    assert "secret" not in json.dumps(told)


def test_no_proof(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, url=url, expected="Paris")
    assert told["failed"] is True
    assert told["completion"]["failure"] == "wrong_text"
    assert "does not contain 'Paris'" in told["msg"]
    assert "Next: " in told["msg"]


def test_an_address_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no HTTP address" in run(capsys, url="a1:8000")["msg"]
