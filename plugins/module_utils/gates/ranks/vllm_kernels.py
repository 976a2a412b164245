"""Kernels that vLLM runs and torch does not, captured and replayed: one of them a part of a job. Runs in a rank, under torch.

The classes are vLLM's and FlashInfer's own (read in vLLM 0.32.0 and FlashInfer's documentation), given what vLLM gives them.
Where one is not there, or vLLM itself would not use it, the part says why it was skipped. **None of this has run on a GPU.**
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import events
from .captured import Call, CudaGraphs, deviation
from .context import Context

SIZES = (256, 1 << 16, 1 << 20)
"""Elements of bfloat16 for an all-reduce: 512 bytes to 2 MiB, where vLLM takes its own kernels."""
BATCHES = (1, 8, 64)
HEADS, KV_HEADS, HEAD_DIM, PAGE = 8, 2, 128, 16
TOLERANCE = {"custom_all_reduce": 0.0, "symmetric_memory": 0.0, "flashinfer_attention": 2e-2}
"""Largest deviation, relative to the largest value. Sums of small whole numbers are exact."""
WORKSPACE = 128 << 20


class Skipped(Exception):
    """The kernel is not there, or vLLM would not use it here; the text says why."""


def defaults(backend: str) -> dict[str, Any]:
    """The parameters that a job may leave out: ``replays`` of each graph. ``kernel`` is always given."""
    return {"replays": 100 if backend == "nccl" else 20}


def work(context: Context) -> None:
    """Eager against this rank's own arithmetic, then a graph of each size, replayed and compared."""
    kernel = context.params["kernel"]
    context.report.begin("eager", f"{kernel}: set up")
    try:
        if context.backend != "nccl":
            raise Skipped("there is no GPU")
        import torch

        subject = _SUBJECTS[kernel](context, torch)
    except Skipped as reason:
        context.report.send(events.Skipped, what=kernel, reason=str(reason))
        return
    graphs = CudaGraphs(context, torch)
    eager = {}
    for size in subject.sizes:
        context.report.begin("eager", f"{kernel} {size}")
        eager[size] = _eager(context, subject, kernel, size)
    captured: dict[int, Call] = {}
    with subject.capturing():
        for size in reversed(subject.sizes):
            context.report.begin("capture", f"{kernel} {size}")
            began = time.perf_counter()
            captured[size] = graphs.capture(subject.call(size), subject.input(size, 0))
            context.synchronize()
            spent = time.perf_counter() - began
            context.report.send(events.Capture, what=context.report.what, mode=kernel, batch=size, seconds=spent)
    for size in subject.sizes:
        context.report.begin("replay", f"{kernel} {size}")
        _replay(context, subject, kernel, size, captured[size], eager[size])
    context.report.begin("release", f"{kernel}: graphs and their memory")
    graphs.release()
    subject.close()


class _Subject:
    """One kernel: its sizes, an input of a size, the call, and what it must give."""

    sizes: tuple[int, ...] = SIZES

    def input(self, size: int, seed: int) -> Any:
        raise NotImplementedError

    def call(self, size: int) -> Call:
        raise NotImplementedError

    def expected(self, size: int, seed: int) -> Any:
        raise NotImplementedError

    @contextlib.contextmanager
    def capturing(self) -> Iterator[None]:
        """Open while graphs are captured."""
        yield

    def close(self) -> None:
        """Give back what it holds."""


class _AllReduce(_Subject):
    """Sums of whole numbers over all ranks; small enough for bfloat16 to hold exactly up to 64 ranks."""

    def __init__(self, context: Context, torch: Any) -> None:
        _need("vllm", "vLLM is not installed")
        if context.world == 1:
            raise Skipped("one rank: vLLM has nothing to reduce")
        self._context = context
        self._torch = torch
        self._group = torch.distributed.new_group(backend="gloo")  # where vLLM's kernels exchange their handles

    def input(self, size: int, seed: int) -> Any:
        return self._values(size, seed, self._context.rank)

    def expected(self, size: int, seed: int) -> Any:
        return sum(self._values(size, seed, rank) for rank in range(self._context.world))

    def _values(self, size: int, seed: int, rank: int) -> Any:
        index = self._torch.arange(size, device=self._context.device)
        return ((index * 3 + rank * 7 + seed) % 4).to(self._torch.bfloat16)


class _CustomAllReduce(_AllReduce):
    def __init__(self, context: Context, torch: Any) -> None:
        super().__init__(context, torch)
        from vllm.distributed.device_communicators.custom_all_reduce import CustomAllreduce

        self._own = CustomAllreduce(group=self._group, device=context.device)
        if self._own.disabled:
            raise Skipped("vLLM does not use its custom all-reduce with these GPUs and links")

    def call(self, size: int) -> Call:
        return _answered(self._own.custom_all_reduce)

    @contextlib.contextmanager
    def capturing(self) -> Iterator[None]:
        with self._own.capture():
            yield

    def close(self) -> None:
        self._own.close()


class _SymmetricMemory(_AllReduce):
    def __init__(self, context: Context, torch: Any) -> None:
        super().__init__(context, torch)
        from vllm.distributed.device_communicators.symm_mem import SymmMemCommunicator

        self._own = SymmMemCommunicator(group=self._group, device=context.device)
        if self._own.disabled:
            raise Skipped("vLLM does not use symmetric memory with these GPUs and links")

    def call(self, size: int) -> Call:
        return _answered(self._own.all_reduce)


def _answered(all_reduce: Callable[[Any], Any]) -> Call:
    """vLLM's kernels give None for what they leave to NCCL, which would prove nothing here."""

    def call(data: Any) -> Any:
        result = all_reduce(data)
        if result is None:
            raise RuntimeError(f"vLLM leaves an all-reduce of {data.numel()} elements to NCCL")
        return result

    return call


class _FlashInferAttention(_Subject):
    """Decode attention over a paged KV cache, as vLLM's FlashInfer backend plans it for graphs."""

    sizes = BATCHES

    def __init__(self, context: Context, torch: Any) -> None:
        _need("flashinfer", "FlashInfer is not installed")
        _need("vllm", "vLLM is not installed")
        from vllm.utils.flashinfer import has_flashinfer

        if not has_flashinfer():
            raise Skipped("vLLM finds no kernels of FlashInfer: neither flashinfer-cubin nor nvcc and ninja")
        self._torch = torch
        self._device = context.device
        generator = torch.Generator().manual_seed(7)
        shape = (max(BATCHES), 2, PAGE, KV_HEADS, HEAD_DIM)
        self._cache = torch.randn(shape, generator=generator).to(context.device, torch.bfloat16)

    def input(self, size: int, seed: int) -> Any:
        generator = self._torch.Generator().manual_seed(seed * 1000 + size)
        data = self._torch.randn(size, HEADS, HEAD_DIM, generator=generator)
        return data.to(self._device, self._torch.bfloat16)

    def call(self, size: int) -> Call:
        import flashinfer

        torch = self._torch
        integers = {"dtype": torch.int32, "device": self._device}
        pages, bounds = torch.arange(size, **integers), torch.arange(size + 1, **integers)
        last = torch.full((size,), PAGE, **integers)
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            torch.zeros(WORKSPACE, dtype=torch.uint8, device=self._device),
            "NHD",
            use_cuda_graph=True,
            paged_kv_indptr_buffer=bounds,
            paged_kv_indices_buffer=pages,
            paged_kv_last_page_len_buffer=last,
        )
        types = {"q_data_type": torch.bfloat16, "kv_data_type": torch.bfloat16}
        wrapper.plan(bounds.clone(), pages.clone(), last.clone(), HEADS, KV_HEADS, HEAD_DIM, PAGE, **types)

        def call(data: Any) -> Any:
            return wrapper.run(data, self._cache)

        return call

    def expected(self, size: int, seed: int) -> Any:
        """torch's own attention over each request's page."""
        keys, values = (
            self._cache[:size, place].transpose(1, 2).repeat_interleave(HEADS // KV_HEADS, dim=1).float()
            for place in range(2)
        )
        query = self.input(size, seed).unsqueeze(2).float()
        return self._torch.nn.functional.scaled_dot_product_attention(query, keys, values).squeeze(2)


_SUBJECTS: dict[str, Callable[[Context, Any], _Subject]] = {
    "custom_all_reduce": _CustomAllReduce,
    "symmetric_memory": _SymmetricMemory,
    "flashinfer_attention": _FlashInferAttention,
}
KERNELS = tuple(_SUBJECTS)


def _need(package: str, reason: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Skipped(reason)


def _eager(context: Context, subject: _Subject, kernel: str, size: int) -> float:
    torch_call = subject.call(size)
    began = time.perf_counter()
    worst = max(deviation(torch_call(subject.input(size, seed)), subject.expected(size, seed)) for seed in range(2))
    context.synchronize()
    seconds = (time.perf_counter() - began) / 2
    tolerance = TOLERANCE[kernel]
    context.report.send(
        events.Eager,
        what=context.report.what,
        batch=size,
        deviation=worst,
        tolerance=tolerance,
        seconds=seconds,
        wrong=worst > tolerance,
    )
    return seconds


def _replay(context: Context, subject: _Subject, kernel: str, size: int, replay: Call, eager: float) -> None:
    replays = context.params["replays"]
    inputs = [subject.input(size, seed) for seed in range(3)]
    expected = [subject.expected(size, seed) for seed in range(3)]
    worst = spent = 0.0
    for count in range(replays):
        context.synchronize()
        began = time.perf_counter()
        got = replay(inputs[count % 3])
        context.synchronize()
        spent += time.perf_counter() - began
        worst = max(worst, deviation(got, expected[count % 3]))
    context.report.send(
        events.Replay,
        what=context.report.what,
        mode=kernel,
        replays=replays,
        deviation=worst,
        tolerance=TOLERANCE[kernel],
        wrong=worst > TOLERANCE[kernel],
        seconds=spent / replays,
        eager_seconds=eager,
    )
