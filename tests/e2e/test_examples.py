"""The example inventories bring up bare hosts: nothing of them is changed but addresses, GPUs, the repository and the model.

An example of one host and one of two; the one of four replicas and two routers differs in numbers alone, and is too big here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.lab import ROOT, Lab
from tests.unit.tools.scripts import script

pytestmark = pytest.mark.long

MIRROR = "http://mirror.testbed.test"
EXAMPLES = {"one_host": {"gpu-01": "a1"}, "one_replica": {"gpu-01": "a1", "gpu-02": "a2"}}


def overlay(lab: Lab, hosts: dict[str, str]) -> str:
    """An inventory over the example: how the testbed's hosts are reached, what they have, and where things come from."""
    facts, state = lab.facts(), lab.state
    reached = (
        f"-o UserKnownHostsFile={state}/known_hosts -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes "
        "-o IdentitiesOnly=yes"
    )
    values: dict[str, Any] = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": f"{state}/id_ed25519",
        "ansible_ssh_common_args": reached,
        "vault_ray_node_token": "0" * 64,
        "vault_vllm_server_api_key": "1" * 64,
        # GPUs
        "gpu_host_interface": "eth0",
        "gpu_host_gpus": 1,
        # Not a pipeline over the hosts, as the example has it: with that, vLLM 0.32 for CPU ends at its first completion here
        # (KeyError in its scheduler).
        "vllm_server_tensor_parallel_size": len(hosts),
        "vllm_server_pipeline_parallel_size": 1,
        # the repository, and that of the serving environment
        "nvidia_driver_source": "mirror",
        "nvidia_driver_repository_url": f"{MIRROR}/nvidia/debian12/x86_64/",
        "nvidia_driver_keyring_url": f"{MIRROR}/nvidia/lockstep-testbed-archive-keyring.gpg",
        "nvidia_driver_keyring_sha256": facts["keyring_sha256"],
        "serving_runtime_lock": "cpu",
        "serving_runtime_wheelhouse": f"{MIRROR}/wheels/",
        "serving_runtime_extra_requirements": [
            f"vllm==0.32.0+cpu --hash=sha256:{facts['vllm_sha256']}",
            f"lockstep-testbed-platform==1.0 --hash=sha256:{facts['lockstep_testbed_platform_sha256']}",
        ],
        # the model
        "vllm_server_model": "/srv/models/tiny",
        "vllm_server_served_model_name": "tiny",
        "vllm_server_args": {"max_model_len": 256, "max_num_seqs": 8},
        "vllm_server_environment": {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"},
        "vllm_server_proof_prompt": facts["proof_prompt"],
        "vllm_server_proof_answer": facts["proof_answer"],
        "vllm_server_proof_max_tokens": 32,
    }
    addresses = {
        name: {"ansible_host": lab.address(host), "gpu_host_address": lab.address(host)} for name, host in hosts.items()
    }
    return json.dumps({"all": {"hosts": {name: {**values, **each} for name, each in addresses.items()}}})


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest, lab: Lab) -> Iterator[tuple[str, Lab]]:
    """Bare hosts of a testbed of its own, and the example's name."""
    lab.testbed("down")
    lab.testbed("up", "--hosts", "2", deadline=900)
    yield request.param, Lab(ROOT / "inventories/examples" / request.param, lab.environment)
    lab.testbed("down")
    lab.testbed("up", "--hosts", "2", deadline=900)


def test_example_brings_up_bare_hosts(example: tuple[str, Lab]) -> None:
    name, lab = example
    hosts = EXAMPLES[name]
    play = lab.play(overlay=overlay(lab, hosts))
    assert play.rc == 0, play.explained()
    asked = {"model": "tiny", "prompt": lab.facts()["proof_prompt"], "max_tokens": 48, "temperature": 0}
    answer = lab.on(
        hosts["gpu-01"],
        f"curl -s -m 30 http://{lab.address(hosts['gpu-01'])}:8000/v1/completions -H 'Content-Type: application/json' "
        f"-H 'Authorization: Bearer {'1' * 64}' -d {shlex.quote(json.dumps(asked))}",
    )
    assert lab.facts()["proof_answer"] in json.loads(answer)["choices"][0]["text"], answer
    again = lab.play(overlay=overlay(lab, hosts))
    assert again.rc == 0, again.explained()
    assert again.changed() == {}


def test_inventory_made_by_the_tool_is_read(lab: Lab, tmp_path: Any) -> None:
    """Preflight of an inventory of tools/new-inventory: of the testbed's hosts it says what it would say of anybody's."""
    made = script("new-inventory")
    hosts = ",".join(f"{host}={lab.address(host)}" for host in ("a1", "a2"))
    assert made.main([f"{tmp_path}/mine", "--hosts", hosts, "--gpus", "1"]) == 0
    play = Lab(tmp_path / "mine", lab.environment).play(
        "playbooks/preflight.yml", f"--vault-password-file={tmp_path}/mine/vault-password.txt",
        overlay=overlay(lab, {"a1": "a1", "a2": "a2"}),
    )  # fmt: skip
    assert play.rc == 0, play.explained()
    assert "2 hosts in 1 wave" in play.text or "replica_a" in play.text
