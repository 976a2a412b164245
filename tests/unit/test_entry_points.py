"""Every ``-m lockstep.<module>`` that a role, a scenario, a plugin or a page of the docs types names a file of the library.

So does every ``isolated.py lockstep.<module>``, by which root runs one.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "plugins" / "module_utils"
FOLDERS = (
    "roles",
    "molecule",
    "plugins",
    "playbooks",
    "docs",
    "tests/e2e",
    "benchmarks",
    "testbed/runtime",
    "testbed/lib",
)
COMMAND = re.compile(r"""(?:-m|isolated\.py)[,"']*\s*["']?lockstep\.(?!vllm\b)([a-z_][\w.]*\w)""")


def commands() -> list[tuple[str, str]]:
    """Each module that is run by name, with the file that does so, relative to the root."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    texts = [(path, path.read_text(encoding="utf-8")) for path in files if path.suffix in (".yml", ".j2", ".py", ".md")]
    return sorted({(str(path.relative_to(ROOT)), name) for path, text in texts for name in COMMAND.findall(text)})


def test_commands_are_found() -> None:
    found = {path for path, _name in commands()}
    assert {
        "roles/gpu_host/templates/lockstep-filter.service.j2",
        "roles/ray_node/templates/lockstep-ray.service.j2",
    } <= found


@pytest.mark.parametrize(("path", "name"), commands())
def test_a_module_that_is_run_by_name_exists(path: str, name: str) -> None:
    assert LIBRARY.joinpath(*name.split(".")).with_suffix(".py").exists(), (
        f"{path} runs lockstep.{name}, which is not there"
    )
