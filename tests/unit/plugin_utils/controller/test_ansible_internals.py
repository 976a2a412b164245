"""The contract with ansible-core: what is used of its internals does what Lockstep relies on.

``make contract`` runs this file under the lowest supported version too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import release
from ansible.errors import AnsibleActionFail
from ansible.playbook.play_context import PlayContext

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals
from tests.machine import PATIENCE

ROOT = Path(__file__).parents[4]
GROUPS = {
    "children": {
        "lockstep": {
            "children": {"zebra": {"hosts": {"z1": {"ansible_host": "{{ address }}"}}}, "ant": {"hosts": {"a1": None}}},
            "vars": {"address": "10.0.0.1"},
        }
    }
}
Read = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("version", "supported"),
    [
        ("2.18.12", False),
        ("2.19.3", False),  # hangs at times: ansible/ansible#85879
        ("2.19.4rc1", False),
        ("2.19.4", True),
        ("2.20.3", True),
        ("2.21.5", True),
        ("2.22.0.dev0", False),
        ("2.22.0", False),
        ("3.0.0", False),
    ],
)
def test_supported_versions(version: str, supported: bool) -> None:
    assert (ansible_internals.unsupported(version) is None) == supported


def test_this_version_is_supported() -> None:
    ansible_internals.require_supported_version()


def test_an_unsupported_version_is_one_line_that_names_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = ansible_internals.unsupported("2.18.12")
    assert str(stop) == (
        "ansible-core 2.18.12 is not supported; need >= 2.19.4, < 2.22. Next: pip install 'ansible-core>=2.19.4,<2.22'"
    )
    monkeypatch.setattr(ansible_internals, "unsupported", lambda: stop)
    with pytest.raises(AnsibleActionFail, match=r"2\.18\.12 is not supported") as failed:
        ansible_internals.require_supported_version()
    assert failed.value.result["next"] == "pip install 'ansible-core>=2.19.4,<2.22'"


def test_raw_variables_are_those_of_the_host_and_its_groups_untemplated(read_inventory: Read) -> None:
    raw = ansible_internals.raw_variables(read_inventory(GROUPS).hostvars, "z1")
    assert (raw["ansible_host"], raw["address"], raw["inventory_hostname"]) == ("{{ address }}", "10.0.0.1", "z1")


def test_child_groups_keep_the_inventory_s_order(read_inventory: Read) -> None:
    hostvars = read_inventory(GROUPS).hostvars
    assert ansible_internals.child_groups(hostvars, "lockstep") == ["zebra", "ant"]
    assert ansible_internals.child_groups(hostvars, "no_such_group") == []


def test_a_host_templar_sees_that_host_s_variables_only(read_inventory: Read) -> None:
    inventory = read_inventory(GROUPS)
    inventory.templar.available_variables = {"address": "of the task's own host", "other": 1}
    raw = ansible_internals.raw_variables(inventory.hostvars, "z1")
    templar = ansible_internals.host_templar(inventory.templar, raw)
    assert templar.template(raw["ansible_host"]) == "10.0.0.1"
    assert "other" not in templar.available_variables
    assert inventory.templar.available_variables["other"] == 1


def test_templates_of_the_collection_s_files_are_trusted(read_inventory: Read, tmp_path: Path) -> None:
    inventory = read_inventory(GROUPS)
    (tmp_path / "main.yml").write_text('port: 8000\nurl: "http://h:{{ port }}"\nflag: "{{ port > 1 }}"\n')
    (tmp_path / "empty.yml").write_text("---\n")
    loaded = ansible_internals.load_templates(inventory.loader, tmp_path / "main.yml")
    templar = ansible_internals.host_templar(inventory.templar, loaded)
    assert templar.template(loaded["url"]) == "http://h:8000"
    assert templar.template(loaded["flag"]) is True
    assert ansible_internals.load_templates(inventory.loader, tmp_path / "empty.yml") == {}


def connect(become: bool = False, **variables: Any) -> Any:
    return ansible_internals.connect(PlayContext(), "a1", variables, become)


def test_connections_made_in_one_thread_run_their_commands_in_several() -> None:
    def run(connection: Any, number: int) -> tuple[int, bytes]:
        try:
            status, out, _err = connection.exec_command("cat; exit 3", in_data=b"%d" % number, sudoable=False)
            return status, out
        finally:
            connection.close()

    connections = [connect(ansible_connection="local") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, connections, range(8))) == [(3, b"%d" % number) for number in range(8)]


def test_a_connection_takes_its_options_from_the_host_s_variables() -> None:
    connection = connect(
        ansible_host="10.0.0.9", ansible_port=2222, ansible_user="ops", ansible_ssh_common_args="-o X=y"
    )
    options = {name: connection.get_option(name) for name in ("host", "port", "remote_user", "ssh_common_args")}
    assert options == {"host": "10.0.0.9", "port": 2222, "remote_user": "ops", "ssh_common_args": "-o X=y"}
    assert connect().get_option("host") == "a1"


def test_an_unknown_connection_plugin_is_named() -> None:
    """In a process of its own: with the loader that a run sets up, as a test's process has none."""
    code = """
        from ansible.plugins.loader import init_plugin_loader
        init_plugin_loader()
        from ansible.playbook.play_context import PlayContext
        from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import ansible_internals
        ansible_internals.connect(PlayContext(), "a1", {"ansible_connection": "pigeon"}, become=False)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert "AnsibleError: a1: there is no connection plugin 'pigeon'" in done.stderr


@pytest.mark.parametrize(
    ("become", "variables", "begins"),
    [
        pytest.param(False, {}, None, id="neither asks"),
        pytest.param(True, {}, "sudo", id="the task asks"),
        pytest.param(False, {"ansible_become": "yes"}, "sudo", id="the inventory asks"),
        pytest.param(True, {"ansible_become": False}, None, id="the inventory forbids"),
        pytest.param(True, {"ansible_become_method": "su"}, "su", id="another become plugin"),
    ],
)
def test_privilege_escalation(become: bool, variables: dict[str, Any], begins: str | None) -> None:
    command = ansible_internals.privileged(connect(become, **variables), "id -u")
    if begins is None:
        assert command == "id -u"
    else:
        assert command.split()[0] == begins
        assert "id -u" in command


def test_become_options_are_the_host_s() -> None:
    command = ansible_internals.privileged(
        connect(True, ansible_become_user="svc", ansible_become_exe="/opt/sudo"), "id"
    )
    assert command.startswith("/opt/sudo ")
    assert "-u svc" in command


def run_playbook(
    folder: Path,
    *arguments: str,
    task: dict[str, Any],
    hosts: str = "all",
    several: Mapping[str, dict[str, Any]] | None = None,
) -> subprocess.CompletedProcess[str]:
    """One task on one local host in a real run, or on ``several`` with variables of their own, with the callback."""
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "gpu_host_address": "192.0.2.11",
        "gpu_host_interface": "lo",
        "gpu_host_gpus": 1,
        "ray_node_role": "head",
        "nvidia_driver_version": "550.127.05",
        "vllm_server_model": "none",
    }
    named = {name: {**host, **own} for name, own in (several or {"a1": {}}).items()}
    inventory = {"all": {"children": {"lockstep": {"children": {"replica_a": {"hosts": named}}}}}}
    (folder / "inventory.yml").write_text(yaml.safe_dump(inventory))
    (folder / "my.play.yml").write_text(
        yaml.safe_dump([{"name": "Play", "hosts": hosts, "gather_facts": False, "tasks": [{"name": "Task", **task}]}])
    )
    (folder / "ansible.cfg").write_text(
        textwrap.dedent(f"""\
        [defaults]
        collections_path = {ROOT}/collections
        local_tmp = {folder}/tmp
        callbacks_enabled = lockstep.vllm.rollout
        """)
    )
    return subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "inventory.yml", *arguments, "my.play.yml"],
        cwd=folder, env={**os.environ, "ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "NO_COLOR": "1"},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_a_real_run_probes_its_hosts(tmp_path: Path) -> None:
    done = run_playbook(tmp_path, "-v", task={"lockstep.vllm.status": {"format": "json"}})
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"reachable": true' in done.stdout
    assert not any(fragment in done.stdout + done.stderr for fragment in ("Traceback", "DEPRECAT", "WARNING")), (
        done.stdout
    )


def test_the_plan_reads_extra_variables_of_a_real_run(tmp_path: Path) -> None:
    done = run_playbook(tmp_path, "-e", "rollout_action=abort", task={"lockstep.vllm.plan": {}})
    assert done.returncode == 2, done.stdout + done.stderr
    assert "-e rollout_action=abort" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_task_s_answer_is_limited(tmp_path: Path) -> None:
    """Set in the controller's process, and held to by workers, under whichever name a plugin is asked for."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nfor command; do :; done\nexec sh -c "$command"\n')
    ssh.chmod(0o755)
    hosts = {
        f"{kind}{number}": {"ansible_connection": connection, "ansible_ssh_executable": str(ssh), "size": size}
        for kind, size in (("fits", 3 << 20), ("large", 5 << 20))
        for number, connection in enumerate(("local", "ansible.builtin.local", "ssh", "ansible.builtin.ssh"))
    }
    done = run_playbook(tmp_path, task={"ansible.builtin.raw": "head -c {{ size }} /dev/zero"}, several=hosts)
    recap = dict(re.findall(r"^(\w+)\s+: .*\bfailed=(\d)", done.stdout, re.MULTILINE))
    shown = done.stdout[-3000:] + done.stderr[-3000:]
    assert recap == {name: "1" if name.startswith("large") else "0" for name in hosts}, shown
    _before, *fatal = re.split(r"^fatal: ", done.stdout, flags=re.MULTILINE)
    assert len(fatal) == 4, shown
    assert all("answered a task with more than 4 MiB" in each for each in fatal), shown


def test_a_task_s_answer_may_be_more_where_the_operator_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKSTEP_ANSWER_LIMIT", "6")
    task = {"ansible.builtin.raw": f"head -c {5 << 20} /dev/zero"}
    done = run_playbook(tmp_path, task=task)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ({}, []),
        ({"tags": ("all",), "skip_tags": (), "start_at_task": None}, []),
        ({"tags": ("all", "x")}, ["--tags"]),
        (
            {"tags": ["x"], "skip_tags": ["always"], "start_at_task": "Roll"},
            ["--tags", "--skip-tags", "--start-at-task"],
        ),
    ],
)
def test_options_that_leave_tasks_out(options: dict[str, Any], left_out: list[str]) -> None:
    assert ansible_internals.left_out(options) == left_out


@pytest.mark.parametrize("option", ["--tags", "--skip-tags", "--start-at-task"])
def test_the_hosts_of_a_play_are_asked_for_even_where_no_task_is_left(tmp_path: Path, option: str) -> None:
    """What keeps a cut run from ending with 0: Ansible evaluates ``hosts`` before it looks at tags."""
    hosts = "{{ lookup('lockstep.vllm.run_hosts', 'all') }}"
    done = run_playbook(tmp_path, option, "x", task={"ansible.builtin.debug": {}}, hosts=hosts)
    assert done.returncode not in (0, 250), done.stdout + done.stderr
    assert f"{option} would leave out tasks" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_playbook_s_name(tmp_path: Path) -> None:
    from ansible.parsing.dataloader import DataLoader
    from ansible.playbook import Playbook

    path = tmp_path / "upgrade_driver.yml"
    path.write_text("- hosts: all\n  gather_facts: false\n")
    loader = DataLoader()
    assert ansible_internals.playbook_name(Playbook.load(str(path), loader=loader)) == "upgrade_driver"


def test_the_tested_version_is_the_one_that_was_asked_for() -> None:
    """``tools/contract`` names the version that it installed, so that no other is tested by mistake."""
    assert release.__version__ == os.environ.get("LOCKSTEP_CONTRACT_VERSION", release.__version__)
