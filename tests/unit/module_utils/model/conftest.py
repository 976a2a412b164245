"""A model of a few files, and the stand-in hub that serves it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
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
        written = self.folder.with_name("faults.json")
        written.write_text(json.dumps(faults))
        written.replace(self.folder / ".faults.json")  # which is read at any moment


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
    program = [sys.executable, str(ROOT / "testbed/stand_ins/hub.py"), "0", str(model), REPOSITORY, TOKEN]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield Hub(f"http://127.0.0.1:{int(process.stdout.readline())}", model)
        finally:
            process.kill()
