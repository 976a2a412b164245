"""The development container: it has the Python that tools/bootstrap asks for, and makes the environment by the command of the docs."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_it_is_json_and_has_the_python_of_the_environment() -> None:
    described = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    least = re.search(r"^python_minimum='([\d.]+)'$", (ROOT / "tools/bootstrap").read_text(), re.MULTILINE)
    assert least
    assert described["image"].startswith(f"python:{least[1]}-")
    assert described["postCreateCommand"] == "make env"
    assert "make env" in (ROOT / "CONTRIBUTING.md").read_text()
