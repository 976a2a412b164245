"""The example inventories parse, mean a cluster, and name only variables that exist."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import policy, topology

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "inventories/examples").glob("*/hosts.yml"))
REPLICAS = {"one_host": [1], "one_replica": [2], "four_replicas": [2, 2, 2, 2]}
SIZES = ("vllm_server_tensor_parallel_size", "vllm_server_pipeline_parallel_size")

OF_A_VERB = ("node_metrics_targets_folder",)
"""Required by a verb that no playbook calls unless it is given."""

examples = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)


@functools.cache
def options() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            found |= entry.get("options") or {}
    return found


@functools.cache
def inventory(example: Path) -> dict[str, Any]:
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", example, "--list"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "WARNING" not in done.stderr, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def members(listed: dict[str, Any], group: str) -> list[str]:
    entry = listed.get(group, {})
    return [*entry.get("hosts", []), *(host for child in entry.get("children", []) for host in members(listed, child))]


def written(example: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(example.rglob("*.yml")))


def test_there_are_the_three_examples() -> None:
    assert {example.name for example in EXAMPLES} == set(REPLICAS)


@examples
def test_it_means_the_replicas_that_it_promises(example: Path) -> None:
    listed = inventory(example)
    hostvars = {
        host: {"gpu_host_address": variables.get("ansible_host"), **variables}
        for host, variables in listed["_meta"]["hostvars"].items()
    }
    groups = {group: members(listed, group) for group in listed if group != "_meta"}
    found = topology.read(groups, listed["lockstep"]["children"], hostvars)
    assert found.problems == ()
    assert [len(replica.hosts) for replica in found.replicas] == REPLICAS[example.name]
    for replica in found.replicas:
        variables = hostvars[replica.head]
        gpus = sum(hostvars[host]["gpu_host_gpus"] for host in replica.hosts)
        assert variables[SIZES[0]] * variables[SIZES[1]] == gpus


@examples
def test_every_variable_exists(example: Path) -> None:
    rollout = {f"rollout_{name}" for name in policy.Policy.__dataclass_fields__}
    known = set(options()) | rollout
    named = set(re.findall(r"^(?:# )?\s*([a-z]+_[a-z_]+):", written(example), re.MULTILINE))
    unknown = {name for name in named if not name.startswith(("ansible_", "replica_"))} - known
    assert not unknown


@examples
def test_values_have_the_documented_types(example: Path) -> None:
    kinds = {"int": int, "str": str, "path": str, "bool": bool, "dict": dict, "list": list, "float": (int, float)}
    documented = options()
    for variables in inventory(example)["_meta"]["hostvars"].values():
        for name, value in variables.items():
            if name in documented and "{{" not in str(value):
                assert isinstance(value, kinds[documented[name]["type"]]), name
                assert value in documented[name].get("choices", [value]), name


@examples
def test_everything_required_is_set_and_secrets_come_from_the_vault(example: Path) -> None:
    text = written(example)
    for name, option in options().items():
        if option.get("required") and not name.startswith(("admission_", "vllm_haproxy_")) and name not in OF_A_VERB:
            assert re.search(rf"^\s*{name}:", text, re.MULTILINE), f"{name} is required and not set"
        if option.get("no_log") and re.search(rf"^\s*{name}:", text, re.MULTILINE):
            assert f'{name}: "{{{{ vault_{name} }}}}"' in text, f"{name} is a secret outside the vault"
