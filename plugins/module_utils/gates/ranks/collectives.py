"""Collectives on known data, checked element by element, and their speed. Runs in a rank, under torch.

All values are small whole numbers, so that every sum is exact in every dtype whatever the order of its terms (bfloat16
holds whole numbers up to 256, and no partial sum exceeds that for up to 256 ranks): a single wrong element is an error,
with no tolerance to hide behind.
"""

from __future__ import annotations

import time
from typing import Any

from . import events
from .context import Context

BROADCAST_MODULUS = 251
DTYPES = ("bfloat16", "float16", "float32")
WARM_UPS = 3


def defaults(backend: str) -> dict[str, Any]:
    """The parameters that a job leaves out.

    ``sizes`` of messages (bytes, small ones too: they take other algorithms), ``busbw_bytes``, ``iterations``. On a GPU the
    bandwidth is taken with 512 MiB, where NVLink is near its peak.
    """
    on_gpu = backend == "nccl"
    return {
        "sizes": [64, 4096, 1 << 20, 64 << 20] if on_gpu else [64, 4096, 1 << 20],
        "busbw_bytes": 512 << 20 if on_gpu else 4 << 20,
        "iterations": 20 if on_gpu else 5,
    }


def work(context: Context) -> None:
    """Check this rank's own arithmetic, then every collective in every dtype and size, then measure busbw."""
    import torch

    params = context.params
    context.report.begin("local", "integer GEMM without peers")
    _local(context, torch)
    for operation in OPERATIONS:
        for name in DTYPES:
            for size in params["sizes"]:
                context.report.begin("check", f"{operation} {name} {size} bytes")
                _check(context, torch, operation, name, size)
    if params["busbw_bytes"]:
        for operation in OPERATIONS:
            _measure(context, torch, operation, params["busbw_bytes"], params["iterations"])


def modulus(world: int) -> int:
    """Values of the sums are below this, so that no partial sum over ``world`` ranks exceeds 256."""
    return max(2, min(8, 256 // world + 1))


def _pattern(torch: Any, context: Context, rank: int, count: int, limit: int) -> Any:
    index = torch.arange(count, device=context.device, dtype=torch.int64)
    return (index * 3 + rank * 7) % limit


def _sums(torch: Any, context: Context, count: int) -> Any:
    """Element-wise sum of every rank's pattern, which repeats with the modulus."""
    limit = modulus(context.world)
    one_period = sum(_pattern(torch, context, rank, limit, limit) for rank in range(context.world))
    index = torch.arange(count, device=context.device, dtype=torch.int64)
    return one_period[index % limit]


def _local(context: Context, torch: Any) -> None:
    """A matrix product of small whole numbers, which no working GPU can get wrong."""
    limit = 4
    left = _pattern(torch, context, context.rank, 128 * 128, limit).reshape(128, 128)
    right = _pattern(torch, context, 1, 128 * 128, limit).reshape(128, 128)
    got = (left.to(torch.float32) @ right.to(torch.float32)).to("cpu", torch.int64)
    expected = left.to("cpu") @ right.to("cpu")
    context.report.send(events.LocalGemm, wrong=int((got != expected).sum()))


def _check(context: Context, torch: Any, operation: str, name: str, size: int) -> None:
    dtype = getattr(torch, name)
    world = context.world
    per_rank = max(1, size // dtype.itemsize // world)
    count = per_rank * world
    got, expected, sources = _OPERATIONS[operation](context, torch, dtype, per_rank, count)
    context.synchronize()
    wrong = got.to(torch.float64) != expected.to(torch.float64)
    number = int(wrong.sum())
    found: dict[str, Any] = {"operation": operation, "dtype": name, "bytes": count * dtype.itemsize, "wrong": number}
    if number:
        index = int(wrong.flatten().nonzero()[0])
        found |= {"index": index, "observed": float(got.flatten()[index]), "expected": float(expected.flatten()[index])}
        if sources is not None:
            found["from_ranks"] = tuple(sorted({int(source) for source in sources[wrong].unique()}))
    context.report.send(events.Check, **found)


def _all_reduce(context: Context, torch: Any, dtype: Any, per_rank: int, count: int) -> tuple[Any, Any, Any]:
    data = _pattern(torch, context, context.rank, count, modulus(context.world)).to(dtype)
    torch.distributed.all_reduce(data)
    return data, _sums(torch, context, count), None


def _all_gather(context: Context, torch: Any, dtype: Any, per_rank: int, count: int) -> tuple[Any, Any, Any]:
    mine = _pattern(torch, context, context.rank, per_rank, BROADCAST_MODULUS).to(dtype)
    parts = [torch.empty_like(mine) for _ in range(context.world)]
    torch.distributed.all_gather(parts, mine)
    expected = [_pattern(torch, context, rank, per_rank, BROADCAST_MODULUS) for rank in range(context.world)]
    sources = torch.arange(context.world, device=context.device).repeat_interleave(per_rank)
    return torch.cat(parts), torch.cat(expected), sources


def _reduce_scatter(context: Context, torch: Any, dtype: Any, per_rank: int, count: int) -> tuple[Any, Any, Any]:
    data = _pattern(torch, context, context.rank, count, modulus(context.world)).to(dtype)
    part = torch.empty(per_rank, device=context.device, dtype=dtype)
    torch.distributed.reduce_scatter_tensor(part, data)
    return part, _sums(torch, context, count)[context.rank * per_rank : (context.rank + 1) * per_rank], None


def _broadcast(context: Context, torch: Any, dtype: Any, per_rank: int, count: int) -> tuple[Any, Any, Any]:
    roots = sorted({0, context.world - 1})
    got, expected, sources = [], [], []
    for root in roots:
        data = _pattern(torch, context, context.rank, count, BROADCAST_MODULUS).to(dtype)
        torch.distributed.broadcast(data, src=root)
        got.append(data)
        expected.append(_pattern(torch, context, root, count, BROADCAST_MODULUS))
        sources.append(torch.full((count,), root, device=context.device))
    return torch.cat(got), torch.cat(expected), torch.cat(sources)


_OPERATIONS = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "broadcast": _broadcast,
}
OPERATIONS = tuple(_OPERATIONS)


def _measure(context: Context, torch: Any, operation: str, size: int, iterations: int) -> None:
    """Mean seconds of one call, all ranks starting together, and of its part before the call returns to the host.

    A rank that spends most of its time there keeps the others waiting. ``bytes`` is nccl-tests' definition of size.
    """
    context.report.begin("busbw", f"{operation} {size} bytes, warm-up")
    call, moved = _timed_call(context, torch, operation, size)
    for _ in range(WARM_UPS):
        call().wait()
    context.synchronize()
    context.report.begin("busbw", f"{operation} {size} bytes")
    issuing = 0.0
    began = time.perf_counter()
    for _ in range(iterations):
        issued = time.perf_counter()
        handle = call()
        issuing += time.perf_counter() - issued
        handle.wait()
    context.synchronize()
    seconds = (time.perf_counter() - began) / iterations
    context.report.send(
        events.Busbw, operation=operation, bytes=moved, seconds=seconds, issue_seconds=issuing / iterations
    )


def _timed_call(context: Context, torch: Any, operation: str, size: int) -> tuple[Any, int]:
    world = context.world
    per_rank = max(1, size // 4 // world)
    whole = torch.ones(per_rank * world, device=context.device, dtype=torch.float32)
    part = torch.ones(per_rank, device=context.device, dtype=torch.float32)
    collectives = torch.distributed
    calls = {
        "all_reduce": lambda: collectives.all_reduce(whole, async_op=True),
        "broadcast": lambda: collectives.broadcast(whole, src=0, async_op=True),
        "reduce_scatter": lambda: collectives.reduce_scatter_tensor(part, whole, async_op=True),
        "all_gather": lambda: collectives.all_gather_into_tensor(whole, part, async_op=True),
    }
    return calls[operation], whole.numel() * whole.itemsize
