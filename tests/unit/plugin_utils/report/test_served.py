"""The command that brings the API's key, pasted: real ansible on an inventory with a vault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.served import Endpoint
from tests.unit.tools.scripts import script

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(("router", "shown"), [(False, "yaml"), (True, "json")])
def test_the_key_of_a_made_inventory_is_what_a_client_sends(tmp_path: Path, router: bool, shown: str) -> None:
    """Whether results are shown as YAML, as by this checkout's configuration, or as JSON; and nothing else is said."""
    folder = tmp_path / "mine"
    hosts = "--hosts=gpu-01=192.0.2.1,gpu-02=192.0.2.2"
    assert script("new-inventory").main([str(folder), hosts, *(["--routers=lb-01=192.0.2.9"] if router else [])]) == 0
    endpoint = Endpoint("lb-01" if router else "replica_a", router, "http://192.0.2.1:8000/v1", "m", key=True)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_INVENTORY": str(folder),
        "ANSIBLE_VAULT_PASSWORD_FILE": str(folder / "vault-password.txt"),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": shown,
    }

    def said(text: str) -> str:
        done = subprocess.run(
            ["bash", "-c", text], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout.strip()

    vault = said(f"ansible-vault view {folder}/group_vars/all/vault.yml")
    key = said(f"{endpoint.key_command}; echo $VLLM_API_KEY")
    assert len(key) == 64
    assert f"vault_vllm_server_api_key: {key}" in vault.splitlines()


def test_without_a_key_there_is_no_command() -> None:
    assert Endpoint("replica_a", False, "http://192.0.2.1:8000/v1", "m").key_command == ""
