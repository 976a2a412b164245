"""A model of a few files, and the stand-in hub that serves it."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]
TOKEN = "hf_0123456789abcdef"
REPOSITORY = "owner/tiny"
WEIGHTS = bytes(range(256)) * 4096


@dataclasses.dataclass(frozen=True)
class Hub:
    """Where the stand-in answers, and how to spoil its answers."""

    url: str
    folder: Path

    @property
    def plain(self) -> str:
        """The same files on a plain web server."""
        return f"{self.url}/plain"

    def spoil(self, **faults: Any) -> None:
        (self.folder / ".faults.json").write_text(json.dumps(faults))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "original"
    (folder / "original").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "empty.txt").touch()
    (folder / "original/weights.pth").write_bytes(b"x" * 1000)
    return folder


@pytest.fixture
def hub(model: Path) -> Iterator[Hub]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, str(ROOT / "testbed/stand_ins/hub.py"), str(port), str(model), REPOSITORY, TOKEN]
    process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield Hub(f"http://127.0.0.1:{port}", model)
    finally:
        process.kill()
        process.wait()
