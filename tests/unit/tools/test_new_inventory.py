"""tools/new-inventory: what it writes is an inventory that means the hosts that were named."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import topology
from tests.machine import PATIENCE

from .scripts import ROOT, script

made = script("new-inventory")
TWO = "gpu-01=10.20.0.11,gpu-02=10.20.0.12"


def listed(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", folder, "--list",
         "--vault-password-file", folder / "vault-password.txt"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, capture_output=True, text=True, check=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert "WARNING" not in done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert "ungrouped" not in found, "no line of any other file of the folder is taken for a host"
    return found


@pytest.mark.parametrize(
    ("arguments", "sizes", "routers"),
    [
        (["--hosts", TWO], [2], []),
        (["--hosts", "gpu-01"], [1], []),
        (["--hosts", TWO, "--replica-size", "1", "--routers", "lb-01=10.20.0.5"], [1, 1], ["lb-01"]),
        (
            ["--hosts", f"{TWO},gpu-03,gpu-04", "--replica-size", "2", "--gpus", "4", "--model", "/srv/m/Llama"],
            [2, 2],
            [],
        ),
    ],
)
def test_it_means_what_was_named(tmp_path: Path, arguments: list[str], sizes: list[int], routers: list[str]) -> None:
    folder = tmp_path / "mine"
    assert made.main([f"{tmp_path}/mine", *arguments]) == 0
    found = listed(folder)
    hostvars = found["_meta"]["hostvars"]
    groups = {group: list(entry.get("hosts", [])) for group, entry in found.items() if group != "_meta"}
    groups["lockstep"] = [host for child in found["lockstep"]["children"] for host in groups[child]]
    given = {
        host: {"gpu_host_address": f"10.0.0.{n}", **hostvars[host]} for n, host in enumerate(groups["lockstep"], 1)
    }
    cluster = topology.read(groups, found["lockstep"]["children"], given)
    assert cluster.problems == ()
    assert [len(replica.hosts) for replica in cluster.replicas] == sizes
    assert groups.get("router", []) == routers
    head = hostvars[cluster.replicas[0].head]
    assert head["vllm_server_tensor_parallel_size"] == head["gpu_host_gpus"]
    assert head["vllm_server_pipeline_parallel_size"] == sizes[0]
    assert head.get("gpu_host_filter_clients", ["controller"]) == ["controller"], "the API is open to nobody else"
    assert head.get("rollout_capacity_floor", 0) < len(sizes), "a roll may begin"
    if "--model" in arguments:
        assert (head["vllm_server_model"], head["vllm_server_served_model_name"]) == ("/srv/m/Llama", "llama")


def test_help_says_what_each_option_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        made.main(["--help"])
    options = capsys.readouterr().out.split("options:")[1]
    rows = re.split(r"\n  (?=-)", options)[1:]
    assert len(rows) > 9
    assert [row for row in rows if len(row.split()) < 4] == []


def test_secrets_are_made_kept_and_encrypted(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        assert made.main([f"{folder.parent}/{folder.name}", "--hosts", TWO]) == 0
        assert stat.S_IMODE((folder / "vault-password.txt").stat().st_mode) == 0o600
        assert (folder / "group_vars/all/vault.yml").read_text().startswith("$ANSIBLE_VAULT;")
    first, second = (listed(folder)["_meta"]["hostvars"]["gpu-01"] for folder in folders)
    assert len(first["vault_ray_node_token"]) >= 32
    assert first["vault_ray_node_token"] != first["vault_vllm_server_api_key"] != second["vault_vllm_server_api_key"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--hosts", "gpu_01=10.0.0.1"], "no host name"),
        (["--hosts", "gpu-01=10.0.0.300"], "neither an IP address nor a name"),
        (["--hosts", "gpu-01,gpu-01"], "gpu-01 stands twice"),
        (["--hosts", "gpu-01=10.0.0.1,gpu-02=10.0.0.1"], "10.0.0.1 stands twice"),
        (["--hosts", " , "], "names none"),
        (["--hosts", f"{TWO},gpu-03", "--replica-size", "2"], "3 hosts do not make replicas of 2"),
        (["--hosts", TWO, "--replica-size", "0"], "do not make replicas"),
    ],
)
def test_a_wrong_argument_writes_nothing(
    tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made.main([f"{tmp_path}/mine", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_exists_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    assert made.main([f"{tmp_path}/mine", "--hosts", TWO]) == 2
    assert "exists" in capsys.readouterr().err
    assert not list((tmp_path / "mine").iterdir())


def test_replicas_are_lettered_beyond_z() -> None:
    assert [made._letters(number) for number in (0, 25, 26, 27, 701, 702)] == ["a", "z", "aa", "ab", "zz", "aaa"]
