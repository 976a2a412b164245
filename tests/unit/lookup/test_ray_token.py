"""One token per replica, from a secret that no host gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine import PATIENCE

ROOT = Path(__file__).parents[3]
GROUPED = """
lockstep:
  children:
    replica_a: {hosts: {a1: {}, a2: {}}}
    replica_b: {hosts: {b1: {}}}
"""
ALONE = "gpu: {hosts: {a1: {gpu_host_head: a1}, a2: {gpu_host_head: a1}, b1: {}}}\n"


@pytest.mark.parametrize("inventory", [GROUPED, ALONE], ids=["groups of ours", "a plain play"])
def test_hosts_of_one_replica_share_a_token_and_replicas_do_not(tmp_path: Path, inventory: str) -> None:
    (tmp_path / "hosts.yml").write_text(inventory)
    secret = "s" * 64
    program = [str(Path(sys.executable).with_name("ansible")), "-i", "hosts.yml", "all", "-m", "ansible.builtin.debug"]
    program += ["-a", f"msg={{{{ lookup('lockstep.vllm.ray_token', '{secret}') }}}}", "-o"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(
        program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    tokens = {}
    for line in done.stdout.splitlines():
        host, _, answer = line.partition(" | SUCCESS => ")
        tokens[host] = json.loads(answer)["msg"] if answer else None
    assert set(tokens) == {"a1", "a2", "b1"}, done.stdout + done.stderr
    assert tokens["a1"] == tokens["a2"] != tokens["b1"]
    assert all(token and len(token) == 64 and secret not in token for token in tokens.values())
