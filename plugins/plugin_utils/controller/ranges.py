"""What numbers fit the variables of the roles: what an argument_spec cannot say. tests/unit holds it to name every number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

# ray._private.ray_constants.OBJECT_STORE_MINIMUM_MEMORY_BYTES of Ray 2.x: with less, ray.init refuses.
_RAY_OBJECT_STORE_LEAST = 75 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers that fit.

    Attributes:
        what: what the number is, as a message says it.
        least: the lowest that fits, or, where ``above``, the highest that is too low.
        most: the highest that fits; None for any finite one.
        above: whether ``least`` itself is too low.
    """

    what: str
    least: float
    most: float | None = None
    above: bool = False

    def holds(self, number: float) -> bool:
        """Whether ``number`` fits; never for one that is not finite."""
        low = number > self.least if self.above else number >= self.least
        return math.isfinite(number) and low and (self.most is None or number <= self.most)

    def __str__(self) -> str:
        if self.most is not None:
            return f"{self.what}, {self.least:g} to {self.most:g}"
        return f"{self.what}, more than {self.least:g}" if self.above else f"{self.what}, {self.least:g} or more"


PORT = Range("a port", 1, 65535)
SHARE = Range("a share", 0, 1)
COUNT = Range("a number", 1)
AMOUNT = Range("a number", 0)
DEADLINE = Range("seconds", 0, above=True)
SECONDS = Range("seconds", 0)
GBPS = Range("GB/s", 0)

RANGES: Mapping[str, Range] = {
    "admission_host_floor_gbps": GBPS,
    "admission_host_gate_deadline": DEADLINE,
    "admission_replica_floor_gbps": GBPS,
    "admission_replica_gate_deadline": DEADLINE,
    "admission_rtt_ms": Range("milliseconds", 0, above=True),
    "diagnose_deadline": DEADLINE,
    "gpu_host_gpus": COUNT,
    "gpu_host_nofile": COUNT,
    "gpu_host_shm_mib": Range("MiB", 0),
    "gpu_host_user_id": Range("user number", 1),
    "model_deadline": DEADLINE,
    "model_warm_seconds": SECONDS,
    "node_metrics_exporter_port": PORT,
    "node_metrics_interval": DEADLINE,
    "nvidia_driver_apt_deadline": DEADLINE,
    "nvidia_driver_apt_lock_deadline": SECONDS,
    "nvidia_driver_gate_deadline": DEADLINE,
    "nvidia_driver_gpus": COUNT,
    "nvidia_driver_pcie_width": Range("lanes", 1, 32),
    "nvidia_driver_reboot_deadline": DEADLINE,
    "ray_node_cpus": AMOUNT,
    "ray_node_drain_deadline": SECONDS,
    "ray_node_encryption_port": PORT,
    "ray_node_object_store_bytes": Range("bytes", _RAY_OBJECT_STORE_LEAST),
    "ray_node_port": PORT,
    "ray_node_start_deadline": DEADLINE,
    "rollout_bake_error_share": SHARE,
    "rollout_bake_latency_factor": COUNT,
    "rollout_bake_requests": COUNT,
    "rollout_bake_seconds": SECONDS,
    "rollout_canary": COUNT,
    "rollout_pause_between": SECONDS,
    "rollout_task_deadline": DEADLINE,
    "serving_runtime_deadline": DEADLINE,
    "vllm_haproxy_answer_timeout": DEADLINE,
    "vllm_haproxy_api_port": PORT,
    "vllm_haproxy_check_interval_ms": Range("milliseconds", 1),
    "vllm_haproxy_connect_timeout": DEADLINE,
    "vllm_haproxy_drain_deadline": SECONDS,
    "vllm_haproxy_enable_deadline": SECONDS,
    "vllm_haproxy_error_share": SHARE,
    "vllm_haproxy_metrics_port": PORT,
    "vllm_haproxy_replica_max_requests": AMOUNT,
    "vllm_haproxy_replicas.port": PORT,
    "vllm_haproxy_replicas.ready_port": PORT,
    "vllm_haproxy_request_timeout": DEADLINE,
    "vllm_haproxy_stats_port": PORT,
    "vllm_haproxy_tls_port": PORT,
    "vllm_haproxy_virtual_router_id": Range("a number of VRRP", 1, 255),
    "vllm_server_bake_error_share": SHARE,
    "vllm_server_bake_latency_factor": COUNT,
    "vllm_server_bake_requests": COUNT,
    "vllm_server_bake_seconds": SECONDS,
    "vllm_server_drain_deadline": SECONDS,
    "vllm_server_heartbeat.period": DEADLINE,
    "vllm_server_heartbeat.stale": DEADLINE,
    "vllm_server_heartbeat.wedged": DEADLINE,
    "vllm_server_layout_patience": SECONDS,
    "vllm_server_layout_stable_for": SECONDS,
    "vllm_server_layouts.pipeline_parallel_size": COUNT,
    "vllm_server_layouts.tensor_parallel_size": COUNT,
    "vllm_server_pipeline_parallel_size": COUNT,
    "vllm_server_port": PORT,
    "vllm_server_proof_deadline": DEADLINE,
    "vllm_server_proof_max_tokens": COUNT,
    "vllm_server_ready_port": PORT,
    "vllm_server_restarts.backoff": SECONDS,
    "vllm_server_restarts.limit": AMOUNT,
    "vllm_server_restarts.longest": SECONDS,
    "vllm_server_restarts.stable_seconds": SECONDS,
    "vllm_server_rung_deadline": DEADLINE,
    "vllm_server_serving_deadline": DEADLINE,
    "vllm_server_start_deadline": DEADLINE,
    "vllm_server_tensor_parallel_size": COUNT,
    "vllm_server_wait_deadline": SECONDS,
}
"""Variable to what fits it; ``variable.suboption`` for those of a dict or of the dicts of a list."""


def outside(name: str, value: Any) -> Iterator[str]:
    """What does not fit in the ``value`` of a variable, whose types are right: one line each."""
    if isinstance(value, list):
        for each in value:
            yield from outside(name, each) if isinstance(each, dict) else ()
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from outside(f"{name}.{key}", inner) if f"{name}.{key}" in RANGES else ()
    elif name in RANGES and isinstance(value, (int, float)) and not RANGES[name].holds(value):
        yield f"{name} is {value}: expected {RANGES[name]}"
