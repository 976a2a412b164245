"""Those of the roles' variables that a plan reads, as the inventory gives them to one host.

What their values may be stands in the roles' argument specs and in controller/ranges.py; a plan begins with holding them
against these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict


class Settings(TypedDict, total=False):
    """A host's variables; those of roles that it does not have are missing."""

    gpu_host_address: str
    gpu_host_filter: bool
    gpu_host_filter_clients: Sequence[str]
    gpu_host_filter_egress: Sequence[str] | None
    gpu_host_filter_open: Sequence[Mapping[str, object]]
    gpu_host_gpu_model: str | None
    gpu_host_gpus: int
    gpu_host_interface: str
    gpu_host_manage_names: bool
    gpu_host_zone: str | None
    nvidia_driver_allow_known_bad: Sequence[str]
    nvidia_driver_apt_lock_deadline: float
    nvidia_driver_flavor: str | None
    nvidia_driver_source: str | None
    nvidia_driver_version: str | None
    ray_node_encryption: str
    ray_node_encryption_network: str
    ray_node_encryption_port: int
    ray_node_environment: Mapping[str, str]
    ray_node_port: int
    ray_node_ports: Mapping[str, int | str]
    ray_node_role: str
    ray_node_token: str | None
    serving_runtime_lock: str | None
    vllm_haproxy_api_name: str
    vllm_haproxy_api_port: int
    vllm_haproxy_metrics_clients: Sequence[str]
    vllm_haproxy_metrics_port: int
    vllm_haproxy_replicas: Sequence[Server]
    vllm_haproxy_stats_port: int
    vllm_haproxy_tls_ca: str | None
    vllm_haproxy_tls_certificate: str | None
    vllm_haproxy_tls_key: str | None
    vllm_haproxy_tls_plain: str
    vllm_haproxy_tls_port: int
    vllm_haproxy_virtual_address: str | None
    vllm_haproxy_virtual_interface: str | None
    vllm_server_api_key: str | None
    vllm_server_api_keys_previous: Sequence[str]
    vllm_server_layouts: Sequence[Layout]
    vllm_server_model: str | None
    vllm_server_port: int
    vllm_server_proof_max_tokens: int
    vllm_server_proof_prompt: str
    vllm_server_ready_port: int
    vllm_server_served_model_name: str | None
    vllm_server_tensor_parallel_size: int


class Server(TypedDict):
    """One of ``vllm_haproxy_replicas``, as far as a plan reads it."""

    name: str
    address: str


class Layout(TypedDict, total=False):
    """One of ``vllm_server_layouts``."""

    tensor_parallel_size: int
