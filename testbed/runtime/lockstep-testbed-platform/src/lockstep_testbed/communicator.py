"""Tensor parallelism on CPU without shared memory, which does not reach from one container to another."""

from __future__ import annotations

from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator


class TcpCommunicator(CpuCommunicator):
    """CpuCommunicator that always takes torch.distributed (gloo over TCP)."""

    def _all_group_ranks_share_shm_group_name(self) -> bool:
        return False
