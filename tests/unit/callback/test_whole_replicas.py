"""``--limit`` on a part of a replica, in real runs of the collection's own playbooks. ``make contract`` runs this file too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.machine import PATIENCE

ROOT = Path(__file__).parents[3]
LINE = "ra is looked at as a whole: --limit leaves out a1, a3"
REFUSED = "--limit leaves out a1, a3 of ra: gates need all hosts of a replica, and nothing was done"
PLAYBOOK = """
- name: Play
  hosts: "{{ lookup('lockstep.vllm.run_hosts', 'lockstep', partial=true) }}"
  gather_facts: false
  vars:
    %(name)s_disturb: false
    cut: "{{ hostvars | lockstep.vllm.cut_by_limit(groups, ansible_play_hosts_all, '%(name)s') }}"
  tasks:
    - name: Require whole replicas
      lockstep.vllm.fail:
        cause: "{{ cut.cause }}"
        next: "{{ cut.next }}"
      when: cut | length > 0
      run_once: true

    - name: Say who is there
      ansible.builtin.debug:
        msg: "here is {{ inventory_hostname }}."

- name: Another play
  hosts: all
  gather_facts: false
  tasks:
    - name: Say who is there
      ansible.builtin.debug:
        msg: "there is {{ inventory_hostname }}."
"""


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, with playbooks under its names that show which hosts they have."""
    root = tmp_path_factory.mktemp("collections")
    folder = root / "ansible_collections/lockstep/vllm"
    folder.mkdir(parents=True)
    for name in ("plugins", "meta", "data"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "roles", folder / "roles")
    shutil.copy(ROOT / "galaxy.yml", folder / "galaxy.yml")
    (folder / "playbooks").mkdir()
    for name in ("diagnose", "verify", "site"):
        (folder / "playbooks" / f"{name}.yml").write_text(PLAYBOOK % {"name": name})
    return root


def play(
    collection: Path,
    folder: Path,
    *arguments: str,
    callbacks: str = "lockstep.vllm.whole_replicas",
    stdout: str = "default",
) -> str:
    """What ``ansible-playbook`` shows."""
    replicas = {
        "ra": {"hosts": {"a1": {}, "a2": {}, "a3": {}}},
        "rb": {"hosts": {"b1": {}}},
    }
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {"all": {"vars": local, "children": {"lockstep": {"children": replicas}}, "hosts": {"router1": {}}}}
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (folder / "ansible.cfg").write_text(
        textwrap.dedent(f"""\
        [defaults]
        collections_path = {collection}
        local_tmp = {folder}/tmp
        callbacks_enabled = {callbacks}
        stdout_callback = {stdout}
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "inventory.yml", *arguments],
        cwd=folder,
        env={**os.environ, "ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    return said


def here(said: str, word: str = "here") -> list[str]:
    return [host for host in ("a1", "a2", "a3", "b1", "router1") if re.search(rf"\b{word} is {host}\.", said)]


def test_the_whole_replica_is_looked_at_and_one_line_says_so(collection: Path, tmp_path: Path) -> None:
    said = play(collection, tmp_path, "lockstep.vllm.diagnose", "--limit", "a2")
    assert said.count(LINE) == 1, said
    assert REFUSED not in said
    assert here(said) == here(said, "there") == ["a1", "a2", "a3"], said


def test_the_calm_screen_says_so_too(collection: Path, tmp_path: Path) -> None:
    said = play(collection, tmp_path, "lockstep.vllm.verify", "--limit", "a2", stdout="lockstep.vllm.calm")
    assert said.count(LINE) == 1, said


@pytest.mark.parametrize(
    ("limit", "hosts"),
    [("b1,router1", ["b1"]), ("all", ["a1", "a2", "a3", "b1"])],
)
def test_whole_replicas_stay_what_they_are(collection: Path, tmp_path: Path, limit: str, hosts: list[str]) -> None:
    said = play(collection, tmp_path, "lockstep.vllm.verify", "--limit", limit)
    assert "as a whole" not in said
    assert here(said) == hosts, said


def test_an_excluded_host_is_looked_at_too(collection: Path, tmp_path: Path) -> None:
    said = play(collection, tmp_path, "lockstep.vllm.verify", "--limit", "all:!a1:!a3")
    assert LINE in said
    assert here(said) == ["a1", "a2", "a3", "b1"], said
    assert here(said, "there") == ["a1", "a2", "a3", "b1", "router1"], said


@pytest.mark.parametrize(
    ("arguments", "callbacks"),
    [
        pytest.param(["lockstep.vllm.diagnose"], "lockstep.vllm.interrupts", id="without the callback"),
        pytest.param(["lockstep.vllm.site"], "lockstep.vllm.whole_replicas", id="a playbook that changes things"),
        pytest.param(["lockstep.vllm.diagnose", "-e", "diagnose_disturb=true"], "lockstep.vllm.whole_replicas", id="gates that disturb"),
        pytest.param(["lockstep.vllm.verify", "-e", "verify_disturb={{ x }}"], "lockstep.vllm.whole_replicas", id="that may disturb"),
        pytest.param(["diagnose.yml"], "lockstep.vllm.whole_replicas", id="a playbook of somebody else"),
    ],
)  # fmt: skip
def test_all_else_refuses(collection: Path, tmp_path: Path, arguments: list[str], callbacks: str) -> None:
    (tmp_path / "diagnose.yml").write_text(PLAYBOOK % {"name": "diagnose"})
    said = play(collection, tmp_path, *arguments, "--limit", "a2", callbacks=callbacks)
    assert REFUSED in said, said
    assert LINE not in said
    assert here(said) == []


def test_the_next_playbook_of_the_command_has_the_limit_that_was_typed(collection: Path, tmp_path: Path) -> None:
    said = play(collection, tmp_path, "lockstep.vllm.verify", "lockstep.vllm.site", "--limit", "a2")
    assert said.count(LINE) == 1, said
    assert here(said.partition("REFUSED")[0]) == ["a1", "a2", "a3"]
    assert REFUSED in said, said


def test_a_disturbing_inventory_refuses(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text("verify_disturb: 'yes'\n")
    playbook = PLAYBOOK % {"name": "verify"}
    name = "ansible_collections/lockstep/vllm/playbooks/verify.yml"
    (collection / name).write_text(playbook.replace("    verify_disturb: false\n", ""))
    try:
        assert REFUSED in play(collection, tmp_path, "lockstep.vllm.verify", "--limit", "a2")
    finally:
        (collection / name).write_text(playbook)


def test_a_host_alone_is_removed_in_another_way(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "remove.yml").write_text(PLAYBOOK % {"name": "remove"})
    said = play(collection, tmp_path, "remove.yml", "--limit", "a2")
    assert "--limit leaves out a1, a3 of ra: a replica is removed as a whole, and nothing was done." in said
    said_once = " ".join(said.split())
    command = r"cd \S+ && ansible-playbook -i inventory\.yml remove\.yml -i a2, --limit a2"
    assert re.search(rf"take it out of the inventory, run site\.yml, then {command}", said_once), said_once
    assert "--limit ra" not in said
    assert here(said) == []
