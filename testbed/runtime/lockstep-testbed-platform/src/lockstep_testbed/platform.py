"""vLLM's CPU platform, dressed as a GPU host: Ray's logical GPUs, tensor parallelism over TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm.platforms.cpu import CpuPlatform

from lockstep_testbed import fault_files

if TYPE_CHECKING:
    from vllm.config import VllmConfig

GRAPHS = "lockstep_testbed_graphs"


def requested_graphs(mode: Any, optimization_level: int) -> str:
    """Return which CUDA graphs were asked for: none, piecewise or full (which also stands for full_and_piecewise).

    ``mode`` is vLLM's CUDAGraphMode or None for the optimisation level's default (vllm/config/vllm.py: none at O0,
    piecewise at O1, full_and_piecewise from O2). The CPU platform drops the mode; the engine faults need it.
    """
    name = mode.name if mode is not None else {0: "NONE", 1: "PIECEWISE"}.get(optimization_level, "FULL")
    return "full" if name.startswith("FULL") else str(name).lower()


class TestbedPlatform(CpuPlatform):
    """CPU platform whose workers take Ray's GPU resource."""

    ray_device_key: str = "GPU"
    simple_compile_backend: str = "eager"
    """Of the sampler's small functions, each of which the first completion would wait half a minute for (inductor's C++)."""

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return "lockstep_testbed.communicator.TcpCommunicator"

    @classmethod
    def apply_config_platform_defaults(cls, vllm_config: VllmConfig) -> None:
        super().apply_config_platform_defaults(vllm_config)
        graphs = requested_graphs(vllm_config.compilation_config.cudagraph_mode, int(vllm_config.optimization_level))
        if isinstance(vllm_config.additional_config, dict):
            vllm_config.additional_config.setdefault(GRAPHS, graphs)

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        if fault := fault_files.find("engine_wont_start", multihost=vllm_config.parallel_config.world_size > 1):
            raise RuntimeError(fault.value)
        if vllm_config.parallel_config.worker_cls == "auto":
            vllm_config.parallel_config.worker_cls = "lockstep_testbed.worker.TestbedWorker"
        super().check_and_update_config(vllm_config)
