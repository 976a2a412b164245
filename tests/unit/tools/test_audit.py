"""What `make audit` asks about."""

from __future__ import annotations

import re

import pytest

from tests.unit.tools.scripts import ROOT, script

audit = script("audit")
LOCK = r"""# written by uv
networkx==3.6.1 ; python_full_version < '3.12' and sys_platform == 'linux' \
    --hash=sha256:00
    # via torch==2
networkx==3.7 ; python_full_version >= '3.12' \
    --hash=sha256:01
torch==2.13.0+cpu \
    --hash=sha256:02
ruamel.yaml==0.18
"""


def test_pins_are_taken_whatever_machine_they_are_for() -> None:
    assert audit.pins(LOCK) == [
        ("networkx", "3.6.1"),
        ("networkx", "3.7"),
        ("torch", "2.13.0+cpu"),
        ("ruamel.yaml", "0.18"),
    ]


@pytest.mark.parametrize(
    ("pinned", "layers"),
    [
        ([], []),
        ([("a", "1"), ("b", "1")], [[("a", "1"), ("b", "1")]]),
        ([("a", "1"), ("a", "2"), ("b", "1")], [[("a", "1"), ("b", "1")], [("a", "2")]]),
        ([("a", "1"), ("a", "1")], [[("a", "1")]]),  # in both locks
        ([("a", "1"), ("a", "2"), ("a", "3")], [[("a", "1")], [("a", "2")], [("a", "3")]]),
    ],
)
def test_every_list_names_a_package_once(pinned: list[tuple[str, str]], layers: list[list[tuple[str, str]]]) -> None:
    assert audit.layers(pinned) == layers


@pytest.mark.parametrize("lock", ["cpu.txt", "cuda.txt"])
def test_every_hash_of_a_lock_belongs_to_a_pin(lock: str) -> None:
    """An entry that the pattern does not know (a URL, a path) would not be scanned."""
    text = (ROOT / audit.LOCKS / lock).read_text()
    entries = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert len(entries) > 100
    assert len(audit.pins(text)) == len(entries)


def test_packages_under_another_name_are_asked_about_under_the_known_one() -> None:
    names = {
        name for lock in ("cpu.txt", "cuda.txt") for name, _ in audit.pins((ROOT / audit.LOCKS / lock).read_text())
    }
    assert {name for name in names if re.match(r"(vllm|ray|torch)-", name)} <= {
        *audit.SAME_CODE,
        "torch-c-dlpack-ext",  # a package of its own
    }
