"""vLLM's CPU worker with the driver's device held open, as a CUDA process holds it, and with the engine's faults."""

from __future__ import annotations

import time
from typing import Any

from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
from vllm.v1.worker.cpu_worker import CPUWorker

from lockstep_testbed import device, fault_files
from lockstep_testbed.platform import GRAPHS

KV_CACHE_BYTES = 64 << 20
"""Room for far more tokens than the testbed ever asks for; vLLM's own knob knows whole GiB only, per rank."""
SPIN_SECONDS = 0.02
"""How long an idle rank spins on shared memory. vLLM's second costs a quarter of a core per rank that is asked for one
token every four, and the whole testbed has two cores."""


class TestbedWorker(CPUWorker):
    """CPUWorker that can hang while it captures, be slow or wedge while it serves, or replay wrongly."""

    @property
    def _graphs(self) -> str:
        """Which graphs were asked for: none, piecewise or full."""
        config = self.vllm_config.additional_config
        return str(config.get(GRAPHS, "none")) if isinstance(config, dict) else "none"

    @property
    def _multihost(self) -> bool:
        """Each testbed host has one rank unless it shows more GPUs."""
        return self.parallel_config.world_size > device.count()

    def _fault(self, name: str) -> fault_files.Fault | None:
        return fault_files.find(name, multihost=self._multihost)

    def init_device(self) -> None:
        device.hold()
        SpinCondition.__init__.__defaults__ = (SPIN_SECONDS,)
        super().init_device()

    def determine_available_memory(self) -> int:
        available = min(super().determine_available_memory(), KV_CACHE_BYTES)
        if self._graphs != "none":
            self._capture()
        return available

    def _capture(self) -> None:
        """Where a GPU worker captures its graphs."""
        engine = self._fault("engine_capture_hangs")
        if self._fault("capture_hangs") or (engine and (engine.value != "full" or self._graphs == "full")):
            hang("capture_hangs", "engine_capture_hangs")
        if self._fault("capture_errors"):
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def execute_model(self, *arguments: Any, **options: Any) -> Any:
        if self._fault("engine_wedges"):
            hang("engine_wedges")
        if slow := self._fault("engine_slow"):
            time.sleep(int(slow.value) / 1000)
        if self._graphs != "none":
            for name in ("replay_hangs", "replay_hangs_across_hosts"):
                if self._fault(name):
                    hang(name)
            self._spoil_logits()
        return super().execute_model(*arguments, **options)

    def _spoil_logits(self) -> None:
        """Fault replay_wrong: the next-token logits come out shifted by one token."""
        model = self.model_runner.get_model()
        if getattr(model, "_lockstep_testbed_spoiled", False) or not self._fault("replay_wrong"):
            return
        honest = model.compute_logits

        def spoiled(*arguments: Any, **options: Any) -> Any:
            logits = honest(*arguments, **options)
            return logits.roll(1, dims=-1) if logits is not None and self._fault("replay_wrong") else logits

        model.compute_logits = spoiled
        model._lockstep_testbed_spoiled = True


def hang(*names: str) -> None:
    """Stay here as long as one of these faults is set: in a real hang nothing comes back, but the testbed can be healed."""
    while any(fault_files.find(name, multihost=True) for name in names):
        time.sleep(0.5)
