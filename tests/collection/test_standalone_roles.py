"""Each role in a plain play, from the built collection, on a host of a group that the project has never heard of.

The play is the example of the role's README, as it is typed; what this machine has none of, a driver and somebody's package
sources, is given beside it. In check mode, on this machine.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
ROLES = sorted(path.parent.name for path in (ROOT / "roles").glob("*/README.md"))

# A role that stands by itself, and the variables beside the README's example.
ALONE: dict[str, dict[str, Any]] = {
    "nvidia_driver": {"nvidia_driver_source": "verify"},
    "serving_runtime": {"serving_runtime_packages": [], "serving_runtime_lock": "cpu"},
    "vllm_haproxy": {},
    "node_metrics": {},
}


def example(role: str) -> list[dict[str, Any]]:
    """The play in the role's README."""
    found = re.search(
        r"^```yaml\n(.*?)^```", (ROOT / "roles" / role / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert found, f"{role}: no example"
    plays: list[dict[str, Any]] = yaml.safe_load(found[1])
    return plays


def playbook(elsewhere: Path, role: str) -> Path:
    path = elsewhere / f"{role}.yml"
    path.write_text(yaml.safe_dump(example(role)))
    return path


def inventory(elsewhere: Path, group: str) -> Path:
    host = {"ansible_connection": "local", "ansible_python_interpreter": PYTHON, "ansible_become": False}
    path = elsewhere / f"{group}_only.yml"
    path.write_text(yaml.safe_dump({"all": {"children": {group: {"hosts": {"here": host}}}}}))
    return path


def check(run: Any, elsewhere: Path, role: str, beside: dict[str, Any], *more: str) -> str:
    """What Ansible prints of the example in check mode, once nothing has failed."""
    group = example(role)[0]["hosts"]
    output: str = run(
        "ansible-playbook", "--check", "-i", inventory(elsewhere, group), "--extra-vars", json.dumps(beside), *more,
        playbook(elsewhere, role),
    )  # fmt: skip
    assert re.search(r"^here\s+: ok=[1-9]\d* .*failed=0 ", output, re.MULTILINE), output
    return output


def test_examples_of_the_readmes_are_plays(run: Any, elsewhere: Path) -> None:
    groups = {example(role)[0]["hosts"] for role in ROLES}
    inventories = [argument for group in groups for argument in ("-i", inventory(elsewhere, group))]
    run("ansible-playbook", *inventories, "--syntax-check", *(playbook(elsewhere, role) for role in ROLES))


@pytest.mark.parametrize("role", ROLES)
def test_example_of_the_readme_gives_every_required_variable(role: str) -> None:
    (play,) = example(role)
    assert play["roles"][0]["role"] == f"lockstep.vllm.{role}"
    options = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    required = {name for name, option in options["options"].items() if option.get("required")}
    assert required <= set(play["roles"][0]["vars"])
    assert set(play["roles"][0]["vars"]) <= set(options["options"]), "only variables of the role itself"


@pytest.mark.parametrize("role", ALONE)
def test_role_needs_no_other_role_and_no_group_of_ours(run: Any, elsewhere: Path, role: str) -> None:
    if role == "vllm_haproxy" and subprocess.run([PYTHON, "-c", "import apt"], capture_output=True).returncode:
        pytest.skip("check mode of apt needs python3-apt on this machine")
    assert "Record inputs of this role" in check(run, elsewhere, role, ALONE[role])


def test_gpu_host_needs_no_group_of_ours_to_know_its_replica(run: Any, elsewhere: Path) -> None:
    peers = {"here": "10.30.0.12", "there": "10.30.0.11"}
    beside = {"gpu_host_manage_time": False, "gpu_host_peers": peers, "gpu_host_head": "there"}
    output = check(run, elsewhere, "gpu_host", beside, "-v")
    printed = output[output.index("Install library, data tables and host record") :]
    record = json.JSONDecoder().raw_decode(printed, printed.index("{"))[0]["record"]
    assert record["ray_role"] == "worker"
    assert record["head"] == {"host": "there", "address": "10.30.0.11"}
    assert record["peers"] == peers
