"""What the faults do to torch and the gates: graphs and compiled functions that hang, fail or lie; collectives that are slow,
wrong or deadly.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from lockstep_testbed import device, fault_files

COLLECTIVES = (
    "allreduce",
    "allgather",
    "_allgather_base",
    "reduce_scatter",
    "_reduce_scatter_base",
    "broadcast",
    "barrier",
)


def multihost() -> bool:
    """Whether this process is one of a group that is larger than this host's GPUs."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return False
    return int(distributed.get_world_size()) > device.count()


def find(name: str) -> fault_files.Fault | None:
    """Return the fault if it strikes here and now."""
    return fault_files.find(name, multihost=multihost())


def hang(name: str) -> None:
    """Stay here as long as the fault is set."""
    while find(name):
        time.sleep(0.2)


def on_capture() -> None:
    """Strike before a graph is captured, or a compiled function called for the first time."""
    if find("capture_hangs"):
        hang("capture_hangs")
    if find("capture_errors"):
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def on_replay() -> None:
    """Strike before a replay, or a later call of a compiled function."""
    for name in ("replay_hangs", "replay_hangs_across_hosts"):
        if find(name):
            hang(name)
    # Collectives inside a graph do not pass through the process group's Python face.
    if multihost() and (fault := find("slow_link")):
        time.sleep(int(fault.value) / 1000)


def spoil(result: Any) -> Any:
    """Return the result with every tensor in it a little off."""
    torch = sys.modules["torch"]
    if isinstance(result, torch.Tensor):
        return result + 1
    if isinstance(result, (tuple, list)):
        return type(result)(spoil(part) for part in result)
    if isinstance(result, dict):
        return {key: spoil(part) for key, part in result.items()}
    return result


def struck(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a compiled function."""
    calls = 0

    @functools.wraps(compiled)
    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            on_capture()
            return compiled(*arguments, **options)
        on_replay()
        result = compiled(*arguments, **options)
        return spoil(result) if find("replay_wrong") else result

    return call


def install_in_graphs(captured: Any) -> None:
    """Patch what stands for a CUDA graph in a gate (``lockstep.gates.ranks.captured``), once it is imported."""

    class Struck(captured.CalledGraph):  # type: ignore[misc]
        def capture(self, *arguments: Any) -> None:
            on_capture()
            super().capture(*arguments)

        def replay(self) -> None:
            on_replay()
            super().replay()
            if find("replay_wrong"):
                self.result.add_(1)

    captured.CalledGraph = Struck


def install(torch: Any) -> None:
    """Patch torch, once it is imported."""
    compile_honestly = torch.compile

    @functools.wraps(compile_honestly)
    def compile_struck(model: Any = None, **options: Any) -> Any:
        compiled = compile_honestly(model, **options)
        if model is None or "vllm" in sys.modules:  # without a model this returns a decorator, which calls us again
            return compiled
        if isinstance(compiled, torch.nn.Module):
            compiled.forward = struck(compiled.forward)
            return compiled
        return struck(compiled)

    torch.compile = compile_struck
    group = getattr(getattr(torch._C, "_distributed_c10d", None), "ProcessGroup", None)
    for name in COLLECTIVES:
        if hasattr(group, name):
            setattr(group, name, _collective(name, getattr(group, name)))


def _collective(name: str, honest: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(honest)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        if find("rank_killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if fault := find("slow_link"):
            time.sleep(int(fault.value) / 1000)
        work = honest(self, *arguments, **options)
        if name == "allreduce" and find("wrong_sum"):
            work.wait()
            tensors = arguments[0] if isinstance(arguments[0], (list, tuple)) else [arguments[0]]
            for tensor in tensors:
                tensor.view(-1)[:1].add_(1)
        return work

    return call
