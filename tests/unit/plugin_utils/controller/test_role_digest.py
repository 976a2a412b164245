"""Another comment, name or description makes no host due; another value does."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import role_digest, settings

ROLES = sorted(path.name for path in (settings.ROOT / "roles").iterdir() if path.is_dir())
TASKS = "- name: Write file\n  ansible.builtin.copy:\n    src: a # why\n    dest: /a\n"
BLOCK = "- name: Outer\n  block:\n    - name: Inner\n      ansible.builtin.apt: {name: haproxy}\n"
UNIT = "[Unit]\n# Why.\n\nAfter={{ unit }} {# theirs #}\n; also\n"


@pytest.mark.parametrize(
    ("name", "before", "after", "same"),
    [
        ("tasks/main.yml", TASKS, TASKS.replace("# why", "# another reason"), True),
        ("tasks/main.yml", TASKS, TASKS.replace("Write file", "Copy file"), True),
        ("tasks/main.yml", TASKS, TASKS.replace("dest: /a", "dest: /b"), False),
        ("tasks/main.yml", BLOCK, BLOCK.replace("Inner", "Another").replace("Outer", "Another"), True),
        ("tasks/main.yml", BLOCK, BLOCK.replace("haproxy", "nginx"), False),  # a module's own name
        ("tasks/main.yml", TASKS, "\n# Heading\n" + TASKS, True),
        ("handlers/main.yml", "- name: Reload\n", "- name: Restart\n", False),  # it is notified by that name
        ("defaults/main.yml", "# Seconds.\na: 1\n", "a: 1 # seconds\n", True),
        ("defaults/main.yml", "a: 1\n", "a: 2\n", False),
        ("vars/main.yml", "a: !unsafe '{{ x }}'\n", "# Why.\na: !unsafe '{{ x }}'\n", True),
        ("vars/main.yml", "a: !unsafe '{{ x }}'\n", "a: !unsafe '{{ y }}'\n", False),
        ("templates/x.service.j2", UNIT, UNIT.replace("Why.", "Because."), True),
        ("templates/x.service.j2", UNIT, UNIT.replace(" {# theirs #}", "").replace("; also\n", ""), True),
        ("templates/x.service.j2", UNIT, UNIT.replace("After=", "Before="), False),
        ("templates/x.j2", "# {% if a %}\nb\n# {% endif %}\n", "# {% if c %}\nb\n# {% endif %}\n", False),
        ("templates/x.sh.j2", "#!/bin/sh\nx\n", "#!/bin/bash\nx\n", False),
        ("files/cpu.txt", "a==1\n    # via b\n", "a==1\n    # via c\n", True),
        ("files/x.bin", "a", "b", False),
        ("meta/argument_specs.yml", "a: 1\n", "a: 2\n", True),
        ("README.md", "a", "b", True),
    ],
)  # fmt: skip
def test_what_counts(tmp_path: Path, name: str, before: str, after: str, same: bool) -> None:
    path = tmp_path / "role" / name
    path.parent.mkdir(parents=True)
    path.write_text(before)
    first = role_digest.of(tmp_path / "role")
    path.write_text(after)
    assert (role_digest.of(tmp_path / "role") == first) is same


def test_names_of_files_count_and_caches_do_not(tmp_path: Path) -> None:
    role = tmp_path / "role"
    (role / "tasks").mkdir(parents=True)
    (role / "tasks/main.yml").write_text("[]")
    first = role_digest.of(role)
    (role / "__pycache__").mkdir()
    (role / "__pycache__/x.pyc").write_bytes(b"\xff")
    assert role_digest.of(role) == first
    (role / "tasks/main.yml").rename(role / "tasks/other.yml")
    assert role_digest.of(role) != first


def test_every_byte_of_the_library_counts(tmp_path: Path) -> None:
    (tmp_path / "role").mkdir()
    library = tmp_path / "library"
    library.mkdir()
    (library / "x.py").write_text("a = 1\n")
    first = role_digest.of(tmp_path / "role", [library])
    (library / "x.py").write_text("a = 1  # why\n")
    assert role_digest.of(tmp_path / "role", [library]) != first


@pytest.mark.parametrize("role", ROLES)
def test_comments_of_our_own_roles_do_not_count(role: str, tmp_path: Path) -> None:
    """Every comment line of every file is changed, and every task renamed: nothing would be restarted."""
    mine = tmp_path / role
    shutil.copytree(settings.ROOT / "roles" / role, mine, ignore=shutil.ignore_patterns("__pycache__"))
    first = role_digest.of(mine)
    assert first == role_digest.of(settings.ROOT / "roles" / role)
    for path in (path for path in mine.rglob("*") if path.is_file() and path.parent.name != "meta"):
        # What a task writes as content is a value, comments in it too: of tasks those at the margin alone are changed.
        margin = "" if path.relative_to(mine).parts[0] == "tasks" else " *"
        text = re.sub(rf"^({margin})# .*[^{{}}%\n]$", r"\1# Another reason.", path.read_text(), flags=re.MULTILINE)
        if path.relative_to(mine).parts[0] == "tasks":
            text = re.sub(r"^( *)- name: .*$", r"\1- name: Do it", text, flags=re.MULTILINE)
        path.write_text(text)
    assert role_digest.of(mine) == first
