"""Faults for a rank of a gate on a real GPU, chosen by LOCKSTEP_GPU_FAULT. Only ranks are struck, which are
``python -m lockstep.gates.ranks.main N``; ``setup`` puts this where their PYTHONPATH finds it.
"""

import os
import sys

FAULT = os.environ.get("LOCKSTEP_GPU_FAULT", "")
FOREVER = 10**15
"""Cycles that a kernel spins: days."""
AT_REPLAY = 50


def capture_hang(torch, honest):
    """Host code waits for ever inside a capture."""
    import ctypes

    libc = ctypes.CDLL(None)

    def capture_end(self):
        while True:
            libc.pause()

    return {"capture_end": capture_end}


def replay_hang_on_gpu(torch, honest):
    """A kernel inside the graph never ends."""

    def capture_end(self):
        torch.cuda._sleep(FOREVER)
        return honest.capture_end(self)

    return {"capture_end": capture_end}


def capture_error(torch, honest):
    """A call that is illegal while capturing."""

    def capture_end(self):
        torch.cuda.synchronize()
        return honest.capture_end(self)

    return {"capture_end": capture_end}


def replay_stale(torch, honest):
    """Every tenth replay does nothing."""
    return {"replay": _counted(honest, lambda count: None, skips=lambda count: count % 10 == 0)}


def rank_killed(torch, honest):
    """SIGKILL in a replay."""
    import signal

    def strike(count):
        if count == AT_REPLAY:
            os.kill(os.getpid(), signal.SIGKILL)

    return {"replay": _counted(honest, strike)}


def bad_access(torch, honest):
    """A kernel writes to an address that is nobody's."""
    import cupy

    kernel = cupy.RawKernel('extern "C" __global__ void bad(int* p){ p[1L<<40] = 1; }', "bad")

    def strike(count):
        if count == AT_REPLAY:
            kernel((1,), (1,), (0,))

    return {"replay": _counted(honest, strike)}


def collective_hang_on_gpu(torch, honest):
    """A kernel that never ends before every all-reduce."""
    import torch.distributed as distributed

    all_reduce_honestly = distributed.all_reduce

    def all_reduce(*arguments, **options):
        torch.cuda._sleep(FOREVER)
        return all_reduce_honestly(*arguments, **options)

    distributed.all_reduce = all_reduce
    return {}


def _counted(honest, strike, skips=lambda count: False):
    count = 0

    def replay(self):
        nonlocal count
        count += 1
        strike(count)
        return None if skips(count) else honest.replay(self)

    return replay


FAULTS = {
    each.__name__: each
    for each in (
        capture_hang, replay_hang_on_gpu, capture_error, replay_stale, rank_killed, bad_access, collective_hang_on_gpu,
    )
}  # fmt: skip


def strike(torch, fault):
    """Put one fault into torch."""
    struck = FAULTS[fault](torch, torch.cuda.CUDAGraph)
    if struck:
        torch.cuda.CUDAGraph = type("Struck", (torch.cuda.CUDAGraph,), struck)


if FAULT and sys.orig_argv[-1].isdigit() and "lockstep.gates.ranks.main" in sys.orig_argv:
    import torch

    strike(torch, FAULT)
