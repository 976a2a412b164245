"""playbooks/preflight.yml in a real run against this machine: everything wrong is said at once, and nothing is changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.machine import PATIENCE
from tests.unit.documented import documented

ROOT = Path(__file__).parents[3]
HOSTS = {
    "gpu-01": {"gpu_host_address": "192.0.2.11", "ray_node_role": "head"},
    "gpu-02": {"gpu_host_address": "192.0.2.12", "ray_node_role": "worker"},
    "gpu-03.invalid": {"gpu_host_address": "192.0.2.13", "ray_node_role": "worker", "ansible_connection": "ssh"},
}
VARIABLES = {
    "ansible_connection": "local",
    "ansible_python_interpreter": sys.executable,
    "gpu_host_interface": "eth7",
    "gpu_host_gpus": 8,
    "nvidia_driver_version": "580.95.05",
    "nvidia_driver_source": "verify",
    "ray_node_token": "x",
    "vllm_server_model": "/nowhere/moe",
    "vllm_server_tensor_parallel_size": 16,
    "vllm_server_pipeline_parallel_size": 2,
    "vllm_server_ladder": ["full", "full"],
    "vllm_server_args": {"tensor-parallel-size": 8},
    "vllm_server_ready_port": 8000,
}
EXPECTED = (
    "gpu-03.invalid: it has no ansible_host, and its name does not resolve on this controller",
    "gpu-01 and gpu-02 are one machine (",
    "gpu-01 (replica_a): vllm_server_ladder is ['full', 'full']",
    "gpu-01 (replica_a): vllm_server_args sets tensor-parallel-size; use vllm_server_tensor_parallel_size instead",
    "gpu-01, gpu-02 (replica_a): there is no /nowhere/moe (vllm_server_model)",
    "wants 32 GPUs, the inventory declares 24 (gpu-01 has 8, gpu-02 has 8, gpu-03.invalid has 8)",
    "gpu-01: vllm_server_port and vllm_server_ready_port are both 8000",
)


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    groups = {"lockstep": {"children": {"replica_a": {"hosts": HOSTS}}, "vars": VARIABLES}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", tmp_path / "hosts.yml", ROOT / "playbooks/preflight.yml"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LOCKSTEP_RUNS": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "Refused before anything was changed" in said
    assert [part for part in EXPECTED if part not in said] == [], said
    assert "Traceback" not in said
    documented("a name that does not resolve, no ansible_host", said, done.returncode)
    documented("two of our ports alike", said, done.returncode)
