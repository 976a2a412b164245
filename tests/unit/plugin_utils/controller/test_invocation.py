"""Commands in messages: as they are written, and as an operator who started the run in some way can paste them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import invocation
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.invocation import Invocation
from tests.machine import PATIENCE

ROOT = Path(__file__).resolve().parents[4]
VERIFY = "ansible-playbook playbooks/verify.yml --limit replica_a"
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - lockstep.vllm.fail:
        cause: no
        next: ansible-playbook playbooks/verify.yml --limit replica_a
"""


@pytest.mark.parametrize(
    ("inventories", "cluster"),
    [
        (("inventories/mine",), "mine"),
        (("inventories/mine/hosts.yml",), "mine"),
        ((f"{ROOT}/inventories/testbed/base",), "testbed/base"),
        (("/srv/gpu", "extra.ini"), "gpu, extra"),
        (("a1,a2,",), ""),
        ((), ""),
    ],
)
def test_a_cluster_is_called_as_its_inventory(inventories: tuple[str, ...], cluster: str) -> None:
    assert Invocation(inventories=inventories).cluster == cluster


@pytest.mark.parametrize(
    ("started", "written", "pasted"),
    [
        (Invocation(str(ROOT), "site.yml"), VERIFY, f"cd {ROOT} && {VERIFY}"),
        (Invocation(str(ROOT), "playbooks/status.yml"), "ansible-playbook site.yml", f"cd {ROOT} && ansible-playbook site.yml"),
        (
            Invocation("", "lockstep.vllm.site", ("-i inventory.yml", "-e a=b")),
            VERIFY,
            "ansible-playbook -i inventory.yml -e a=b lockstep.vllm.verify --limit replica_a",
        ),
        (
            Invocation("", f"{ROOT}/site.yml", ("-i /etc/lab.yml",)),
            VERIFY,
            f"ansible-playbook -i /etc/lab.yml {ROOT}/playbooks/verify.yml --limit replica_a",
        ),
        (Invocation("", "/srv/mine.yml"), VERIFY, "ansible-playbook lockstep.vllm.verify --limit replica_a"),
        (
            Invocation(str(ROOT), "site.yml", ("-i lab",)),
            "Next: ansible a1 -m ansible.builtin.ping; once it answers, the same command again",
            f"Next: cd {ROOT} && ansible -i lab a1 -m ansible.builtin.ping; once it answers, the same command again",
        ),
        *(
            (
                Invocation(str(ROOT), "site.yml", ("-i lab",)),
                f"ansible a1:a2 {become} -m ansible.builtin.command -a 'ls -lL /m'",
                f"cd {ROOT} && ansible -i lab a1:a2 {become} -m ansible.builtin.command -a 'ls -lL /m'",
            )
            for become in ("--become", "-b")
        ),
        (
            Invocation(str(ROOT), "site.yml", ("-i lab", "-e a=b")),
            "Next: ansible-playbook … --limit replica_a",
            f"Next: cd {ROOT} && ansible-playbook -i lab -e a=b site.yml --limit replica_a",
        ),
        (
            Invocation(str(ROOT), "playbooks/upgrade_driver.yml", ("-i lab", "-e nvidia_driver_version=580.95.05")),
            "ansible-playbook playbooks/upgrade_driver.yml -e nvidia_driver_version=550.127.05",
            f"cd {ROOT} && ansible-playbook -i lab playbooks/upgrade_driver.yml -e nvidia_driver_version=550.127.05",
        ),
        (Invocation(str(ROOT), "site.yml", ("-i lab",)), "ansible-core 2.18 is not supported", "ansible-core 2.18 is not supported"),
    ],
)  # fmt: skip
def test_repeated(started: Invocation, written: str, pasted: str) -> None:
    assert started.repeated(written) == pasted
    assert started.repeated(pasted) == pasted or not started.folder, "a text that passes here twice stays as it is"


def test_every_text_of_a_result_is_repeated_and_nothing_else() -> None:
    started = Invocation("", "lockstep.vllm.site")
    result = {"msg": VERIFY, "gate": {"next": VERIFY, "seconds": 1.5, "hosts": ["a1", VERIFY]}, "rc": 0, "ok": None}
    command = "ansible-playbook lockstep.vllm.verify --limit replica_a"
    gate = {"next": command, "seconds": 1.5, "hosts": ["a1", command]}
    assert started.in_result(result) == {"msg": command, "gate": gate, "rc": 0, "ok": None}


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ("ansible_become_password=sesame", ["ansible_become_password=…"]),
        ("rollout_webhook_url=https://hooks.example/sesame", ["rollout_webhook_url=…"]),
        ('{"rollout_webhook_headers": {"Authorization": "sesame"}}', ["rollout_webhook_headers=…"]),
        ("a=1 vault_ray_node_token=sesame", ["vault_ray_node_token=…"]),
        ('{"ansible_password": "sesame", "vllm_server_environment": {"HF_TOKEN": "sesame"}}',
         ["ansible_password=…", "vllm_server_environment=…"]),
        ("serving_runtime_index_url=https://me:sesame@index/simple", ["serving_runtime_index_url=…"]),
        ('{"a": 1, "ansible_password": "sesame"}', ['{"a": 1}', "ansible_password=…"]),
        ("vllm_server_proof_max_tokens=32", ["vllm_server_proof_max_tokens=32"]),
        ("nvidia_driver_keyring_url=http://mirror/key.gpg", ["nvidia_driver_keyring_url=http://mirror/key.gpg"]),
        ("@/etc/secrets.yml", ["@/etc/secrets.yml"]),
    ],
)  # fmt: skip
def test_what_is_like_a_secret_is_not_printed(given: str, printed: list[str]) -> None:
    assert list(invocation._variables([given])) == printed


def test_a_limit_to_a_host_becomes_one_to_its_replica() -> None:
    started = Invocation("", "lockstep.vllm.verify")
    result = {
        "next": "Reboot a2, then ansible-playbook playbooks/verify.yml --limit a2",
        "msg": f"{VERIFY}; --limit a1,a2.",
    }
    assert started.in_result(result, {"a1": "replica_a", "a2": "replica_a"}) == {
        "next": "Reboot a2, then ansible-playbook lockstep.vllm.verify --limit replica_a",
        "msg": "ansible-playbook lockstep.vllm.verify --limit replica_a; --limit replica_a.",
    }


def test_a_secret_is_not_repeated_and_what_was_asked_once_neither() -> None:
    given = [
        "vllm_server_api_key=abc",
        '{"ray_node_token": "x"}',
        "rollout_action=pause",
        "nvidia_driver_version=1",
        "@/f.yml",
    ]
    assert list(invocation._variables(given)) == [
        "vllm_server_api_key=…",
        "ray_node_token=…",
        "nvidia_driver_version=1",
        "@/f.yml",
    ]


def run(tmp_path: Path, config: bool) -> str:
    """The ``next`` of a run in ``tmp_path``, which has an ansible.cfg of its own or not."""
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    (tmp_path / "hosts.yml").write_text("all: {vars: {ansible_connection: local}, hosts: {h1: {}}}\n")
    (tmp_path / "vault").write_text("secret\n")
    settings = f"[defaults]\ncollections_path = {ROOT}/collections\n"
    path = (tmp_path if config else tmp_path.parent) / "ansible.cfg"
    path.write_text(settings)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "LOCKSTEP_"))}
    environment |= {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"}
    if not config:
        environment["ANSIBLE_CONFIG"] = str(path)
    typed = ["-i", "hosts.yml", "--vault-password-file", "vault", "-e", "a=b c", "play.yml"]
    program = [str(Path(sys.executable).with_name("ansible-playbook")), *typed]
    done = subprocess.run(
        program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    lines = [line for line in done.stdout.splitlines() if '"next": ' in line]
    assert lines, done.stdout + done.stderr
    return lines[0].partition('"next": "')[2].rstrip('",}')


@pytest.mark.parametrize("config", [True, False])
def test_a_run_repeats_how_it_was_started(tmp_path: Path, config: bool) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    said = run(folder, config)
    where = "" if config else f"{folder}/"
    start = f"cd {shlex.quote(str(folder))} && " if config else ""
    assert said == (
        f"{start}ansible-playbook -i {where}hosts.yml --vault-password-file {where}vault -e 'a=b c' "
        "lockstep.vllm.verify --limit replica_a"
    )
