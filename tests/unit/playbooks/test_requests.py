"""Requests that cannot be meant, by ansible-playbook itself: each ends non-zero, says why, and asks no host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.documented import documented

ROOT = Path(__file__).parents[3]
ASKED = "a host was asked"
HOST = {"ansible_connection": "local", "ansible_python_interpreter": f"echo {ASKED} >&2; false #"}
VARIABLES = {
    "gpu_host_interface": "eth0",
    "gpu_host_gpus": 8,
    "nvidia_driver_version": "550.127.05",
    "ray_node_token": "t",
    "vllm_server_model": "m",
}


def play(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``ansible-playbook playbooks/…`` of this checkout, on the inventory of the folder."""
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", folder / "inventory.yml", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
            "ANSIBLE_NOCOLOR": "1",
            "LOCKSTEP_RUNS": str(folder / "runs"),
            **environment,
        },
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return inventory(tmp_path)


def inventory(folder: Path, **wrong: object) -> Path:
    """A replica of two hosts whose variables are those that are needed, and what is ``wrong``."""
    hosts = {
        "a1": {**HOST, "gpu_host_address": "192.0.2.1", "ray_node_role": "head"},
        "a2": {**HOST, "gpu_host_address": "192.0.2.2", "ray_node_role": "worker"},
    }
    lockstep = {"children": {"replica_a": {"hosts": hosts}}, "vars": {**VARIABLES, **wrong}}
    text = yaml.safe_dump({"all": {"children": {"lockstep": lockstep}}})
    (folder / "inventory.yml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("playbook", "options"),
    [
        ("site", ["--tags", "no-such-tag"]),
        ("upgrade_driver", ["--skip-tags", "always"]),
        ("upgrade_driver", ["--start-at-task", "Run the stages of the wave"]),
        ("preflight", ["--start-at-task", "no such task"]),
        ("verify", ["--tags", "gates"]),
        ("metrics", ["--skip-tags", "x"]),
    ],
)
def test_a_run_that_leaves_tasks_out_is_refused(folder: Path, playbook: str, options: list[str]) -> None:
    ran = play(folder, f"playbooks/{playbook}.yml", *options)
    text = ran.stdout + ran.stderr
    assert ran.returncode not in (0, 250), text
    assert (
        f"{options[0]} would leave out tasks that the run needs, and nothing was done: type the command without" in text
    )
    assert "TASK" not in text
    assert ASKED not in text
    documented(options[0], text, ran.returncode)


def test_tags_of_the_configuration_are_no_other(folder: Path) -> None:
    ran = play(folder, "playbooks/site.yml", ANSIBLE_RUN_TAGS="no-such-tag")
    assert ran.returncode not in (0, 250)
    assert "--tags would leave out tasks" in ran.stdout + ran.stderr


@pytest.mark.parametrize("playbook", ["status", "diagnose"])
def test_playbooks_that_only_look_may_be_cut(folder: Path, playbook: str) -> None:
    ran = play(folder, f"playbooks/{playbook}.yml", "--tags", "no-such-tag")
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("playbook", "name", "meant"),
    [
        ("upgrade_driver", "nvidia_driver_verison", "nvidia_driver_version"),
        ("diagnose", "diagnose_distrub", "diagnose_disturb"),
        ("status", "status_fromat", "status_format"),
    ],
)
def test_a_misspelt_variable_of_the_command_line_is_refused(folder: Path, playbook: str, name: str, meant: str) -> None:
    ran = play(folder, f"playbooks/{playbook}.yml", "-e", f"{name}=580.95.05")
    text = ran.stdout + ran.stderr
    assert ran.returncode not in (0, 250), text
    assert f"-e: there is no variable {name}: did you mean {meant}? Nothing was done" in text
    assert ASKED not in text
    if playbook == "upgrade_driver":
        documented("a misspelt variable of -e", text, ran.returncode)


def test_all_that_is_wrong_with_the_variables_is_said_at_once_and_no_host_is_asked(tmp_path: Path) -> None:
    wrong = {
        "nvidia_driver_version": 550.90,
        "nvidia_driver_source": None,
        "gpu_host_gpus": "{{ no_such }}",
        "vllm_server_prot": 8000,
        "vllm_server_model": ["m"],
    }
    folder = inventory(tmp_path, **wrong)
    ran = play(folder, "playbooks/preflight.yml", "-e", "vllm_server_port=70000", "-e", "rollout_wave_size=400%")
    text = ran.stdout + ran.stderr
    assert ran.returncode not in (0, 250), text
    assert "Refused before anything was changed, for 7 reasons\n" in text
    at = folder / "inventory.yml"
    for said in (
        "- every host of lockstep: there is no variable vllm_server_prot: did you mean vllm_server_port? (",
        f"- every host of lockstep: gpu_host_gpus cannot be templated: 'no_such' is undefined ({at}:",
        "- every host of lockstep: nvidia_driver_source has no value: give it one, or remove it (",
        "- every host of lockstep: nvidia_driver_version is the number 550.9 to YAML, which drops zeros at its end: write it "
        'whole and in quotes, as nvidia_driver_version: "550.9" (',
        "- every host of lockstep: vllm_server_model is a list: expected text (",
        "- -e: vllm_server_port is 70000: expected a port, 1 to 65535\n",
        "- rollout_wave_size is 400%: expected a number of replicas (1 or more) or a percentage (1% to 100%)\n",
    ):
        assert said in text
    assert ASKED not in text
    for case in (
        "a misspelt variable of the inventory",
        "a version that YAML read as a number",
        "a variable without a value",
        "a list where text belongs",
        "a port out of range",
        "a wave size out of range",
    ):
        documented(case, text, ran.returncode)


@pytest.mark.parametrize("groups", ["{}", "{all: {hosts: {a1: {}}}}"], ids=["empty", "no group of ours"])
def test_an_inventory_without_our_groups_is_refused(tmp_path: Path, groups: str) -> None:
    (tmp_path / "inventory.yml").write_text(groups)
    ran = play(tmp_path, "playbooks/site.yml")
    text = ran.stdout + ran.stderr
    assert ran.returncode not in (0, 250), text
    assert ASKED not in text
    documented("no inventory, or none of our groups", text, ran.returncode)


@pytest.mark.parametrize(
    ("playbook", "options"),
    [
        ("remove", []),
        ("remove", ["--limit", "a1"]),
        ("prune_models", ["--limit", "a1"]),
        ("stage_model", []),
        ("site", ["-e", "rollout_action=abort"]),
        ("preflight", ["--limit", "a1"]),
        ("diagnose", ["--limit", "a1", "-e", "diagnose_disturb=true"]),
        ("verify", ["--limit", "a1", "-e", "verify_disturb=true"]),
    ],
)
def test_what_is_refused_before_anything_is_touched_ends_in_a_box_that_says_so(
    folder: Path, playbook: str, options: list[str]
) -> None:
    ran = play(folder, f"playbooks/{playbook}.yml", *options)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert re.search(rf"^[┌─]─ {playbook}: refused, nothing was changed ─", ran.stdout, re.MULTILINE), ran.stdout
    assert "FAILED" not in ran.stdout
    assert "│ failed" not in ran.stdout
    if playbook == "verify":  # a step of its own had begun: such a run has a report
        (report,) = (folder / "runs").glob("*/report.html")
        assert "<title>Verify: refused, nothing was changed</title>" in report.read_text()


def test_status_shows_what_it_can_of_an_inventory_whose_templates_fail(tmp_path: Path) -> None:
    folder = inventory(tmp_path, vllm_server_proof_prompt="{{ no_such }}", vllm_server_proof_answer="{{ no_such }}")
    ran = play(folder, "playbooks/status.yml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    faults = "a1, a2: vllm_server_proof_answer, vllm_server_proof_prompt cannot be templated: 'no_such' is undefined"
    assert (ran.stdout + ran.stderr).count(faults) == 1, ran.stdout + ran.stderr
    assert re.search(r"^ +a1 +head ", ran.stdout, re.MULTILINE), ran.stdout


def test_status_of_a_testbed_that_is_down_says_so(tmp_path: Path) -> None:
    """It said that a variable was undefined."""
    hosts = f"{ROOT}/inventories/testbed/base"
    reached = ["-e", "ansible_connection=local", "-e", "ansible_python_interpreter=/bin/false"]
    (tmp_path / "inventory.yml").write_text("{}")
    ran = play(tmp_path, "-i", hosts, "playbooks/status.yml", *reached, LOCKSTEP_TESTBED="none-of-that-name")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    text = " ".join((ran.stdout + ran.stderr).split())
    assert "cannot be templated: This testbed is not up. Next: make demo, or testbed/testbed up" in text, text
    assert "undefined" not in text


def test_status_of_a_host_is_that_of_its_replica(folder: Path) -> None:
    ran = play(folder, "playbooks/status.yml", "--limit", "a2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("replica_a is looked at as a whole: --limit leaves out a1") == 1
    assert re.search(r"^ +a1 +head ", ran.stdout, re.MULTILINE), ran.stdout
    assert re.search(r"^ +a2 +worker ", ran.stdout, re.MULTILINE), ran.stdout


def test_hosts_are_asked_where_nothing_is_wrong(folder: Path) -> None:
    """Else the tests above would hold of a playbook that never asks anybody."""
    ran = play(folder, "playbooks/preflight.yml")
    assert ASKED in ran.stdout + ran.stderr
