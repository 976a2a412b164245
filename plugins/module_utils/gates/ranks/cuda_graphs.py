"""Captured graphs with collectives inside, replayed many times and compared with eager. Runs in a rank, under torch.

A small transformer layer stands for the model: projection, attention, projection, all-reduce, MLP, all-reduce, as in
tensor parallelism. Every rank holds the same weights times a factor of its own, so that each knows from its own eager part
alone what the all-reduced result must be: that separates a broken collective from a broken graph.

Modes, as vLLM's cudagraph modes: ``PIECEWISE`` has graphs around the collectives, ``FULL`` has the collectives inside.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from . import events
from .captured import Call, CalledGraphs, Compiler, CudaGraphs, deviation
from .context import Context

TOLERANCE = {"bfloat16": 2e-2, "float16": 5e-3, "float32": 1e-4}
"""Largest deviation, relative to the largest magnitude of the expected result."""
MODES = ("PIECEWISE", "FULL")


def defaults(backend: str) -> dict[str, Any]:
    """The parameters that a job leaves out: ``replays`` of each graph; ``hidden``, ``heads`` and ``dtype`` of the layer."""
    on_gpu = backend == "nccl"
    return {
        "replays": 100 if on_gpu else 20,
        "hidden": 1024 if on_gpu else 64,
        "heads": 8 if on_gpu else 4,
        "dtype": "bfloat16" if on_gpu else "float32",
        "compiled": False,
    }


def batches_of(compiled: bool, on_gpu: bool) -> list[int]:
    """Batch sizes, as vLLM captures them.

    Of compiled code a few that differ in kind: 1, for which dynamo specialises; 8, the first that it compiles with a size left
    open; 256, where the same code meets the matrix products of a full tile.
    """
    if not on_gpu:
        return [1, 4]
    return [1, 8, 256] if compiled else [1, 2, 4, 8, 16, 32, 64, 128, 256]


def work(context: Context) -> None:
    """Eager first; then, for each mode, capture every batch size, replay each, and replay them mixed."""
    import torch

    params = context.params
    on_gpu = context.backend == "nccl"
    batches = batches_of(params["compiled"], on_gpu)
    layer = Layer(context, torch, params["hidden"], params["heads"], params["dtype"])
    graphs = CudaGraphs(context, torch) if on_gpu else CalledGraphs(torch)
    compiler = Compiler(torch, params["compiled"], on_gpu)
    eager = {}
    for batch in batches:
        context.report.begin("eager", f"batch {batch}")
        eager[batch] = _eager(context, layer, batch, params["replays"])
    for mode in MODES:
        _one_mode(context, layer, _Capture(layer, graphs, compiler), mode, eager)
    context.report.begin("release", "graphs and their memory")
    graphs.release()
    compiler.release()


class Layer:
    """One tensor-parallel transformer layer, cut where vLLM cuts: at the collectives."""

    def __init__(self, context: Context, torch: Any, hidden: int, heads: int, dtype: str) -> None:
        self.torch = torch
        self.context = context
        self.hidden = hidden
        self.heads = heads
        self.tolerance = TOLERANCE[dtype]
        self.dtype = getattr(torch, dtype)
        generator = torch.Generator().manual_seed(7)
        self.qkv, self.out, self.up, self.down = (
            (torch.randn(*shape, generator=generator) / shape[0] ** 0.5).to(context.device, self.dtype)
            for shape in ((hidden, 3 * hidden), (hidden, hidden), (hidden, 4 * hidden), (4 * hidden, hidden))
        )
        self.factor = _factor(context.rank)
        self.total = sum(_factor(rank) for rank in range(context.world))

    def attention(self, data: Any) -> Any:
        """Projection, attention among the batch's rows, projection: the part before the first collective."""
        batch = data.shape[0]
        query, key, value = (
            part.reshape(batch, self.heads, self.hidden // self.heads).transpose(0, 1).unsqueeze(0)
            for part in (data @ self.qkv).chunk(3, dim=-1)
        )
        mixed = self.torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.squeeze(0).transpose(0, 1).reshape(batch, self.hidden) @ self.out * self.factor

    def mlp(self, data: Any) -> Any:
        """The part between the first collective and the second."""
        return self.torch.nn.functional.silu(data @ self.up) @ self.down * self.factor

    def reduce(self, data: Any) -> Any:
        """The collective: the sum over all ranks, in place."""
        self.torch.distributed.all_reduce(data)
        return data

    def whole(self, data: Any) -> Any:
        """The layer with its collectives."""
        data = data + self.reduce(self.attention(data))
        return data + self.reduce(self.mlp(data))

    def alone(self, data: Any) -> Any:
        """What ``whole`` must give, computed without any collective."""
        data = data + self.attention(data) * (self.total / self.factor)
        return data + self.mlp(data) * (self.total / self.factor)

    def input(self, batch: int, seed: int) -> Any:
        """The same data on every rank."""
        generator = self.torch.Generator().manual_seed(seed * 1000 + batch)
        return self.torch.randn(batch, self.hidden, generator=generator).to(self.context.device, self.dtype)


def _factor(rank: int) -> float:
    """A power of two, so that scaling by it rounds nothing."""
    return 2.0 ** -(rank % 3)


def _eager(context: Context, layer: Layer, batch: int, replays: int) -> float:
    """Compare eager with the rank's own arithmetic. Returns seconds of one eager pass."""
    torch = layer.torch
    with torch.no_grad():
        worst = max(
            deviation(layer.whole(layer.input(batch, seed)), layer.alone(layer.input(batch, seed))) for seed in range(2)
        )
        data = layer.input(batch, 0)
        rounds = max(2, min(replays, 10))
        context.synchronize()
        began = time.perf_counter()
        for _ in range(rounds):
            layer.whole(data)
        context.synchronize()
    seconds = (time.perf_counter() - began) / rounds
    context.report.send(
        events.Eager,
        what=context.report.what,
        batch=batch,
        deviation=worst,
        tolerance=layer.tolerance * 2,
        seconds=seconds,
        wrong=worst > layer.tolerance * 2,
    )
    return seconds


class _Capture:
    """The layer's graph of one batch size, in each mode."""

    def __init__(self, layer: Layer, graphs: CudaGraphs | CalledGraphs, compiler: Compiler) -> None:
        self._layer = layer
        self._graphs = graphs
        self._compiler = compiler

    def __call__(self, mode: str, batch: int) -> Call:
        attention, mlp = self._code("attention"), self._code("mlp")
        reduce = self._layer.reduce

        def whole(data: Any) -> Any:
            data = data + reduce(attention(data))
            return data + reduce(mlp(data))

        if mode == "FULL":
            return self._graph(whole, batch)
        # Captured without their collectives, so that a rank that hangs here hangs alone.
        first, second = self._graph(attention, batch), self._graph(mlp, batch)

        def replay(data: Any) -> Any:
            data = data + reduce(first(data))
            return data + reduce(second(data))

        return replay

    def _code(self, name: str) -> Call:
        plain: Call = getattr(self._layer, name)
        return self._compiler.code(name, plain)

    def _graph(self, call: Call, batch: int) -> Call:
        return self._graphs.capture(call, self._layer.input(batch, 0))


def _one_mode(context: Context, layer: Layer, capture: _Capture, mode: str, eager: dict[int, float]) -> None:
    params = context.params
    title = f"{mode} of compiled code" if params["compiled"] else mode
    with layer.torch.no_grad():
        expected = {batch: [layer.whole(layer.input(batch, seed)) for seed in range(3)] for batch in eager}
    captured: dict[int, Call] = {}
    for batch in sorted(eager, reverse=True):  # the largest first, as vLLM does
        context.report.begin("capture", f"{title} batch {batch}")
        began = time.perf_counter()
        captured[batch] = capture(mode, batch)
        context.synchronize()
        spent = time.perf_counter() - began
        context.report.send(events.Capture, what=context.report.what, mode=title, batch=batch, seconds=spent)
    for batch in eager:
        context.report.begin("replay", f"{title} batch {batch}")
        _replay(context, layer, captured, title, [batch] * params["replays"], expected, eager)
    context.report.begin("replay", f"{title} batches mixed")
    order = random.Random(11).choices(list(eager), k=params["replays"])
    _replay(context, layer, captured, title, order, expected, eager)


def _replay(
    context: Context,
    layer: Layer,
    captured: dict[int, Call],
    title: str,
    order: Sequence[int],
    expected: dict[int, list[Any]],
    eager: dict[int, float],
) -> None:
    """Replay in the given order and compare every result; the clock runs over the replays alone."""
    torch = layer.torch
    inputs = {batch: [layer.input(batch, seed) for seed in range(3)] for batch in set(order)}
    worst = torch.zeros((), dtype=torch.float64, device=context.device)
    spent = 0.0
    with torch.no_grad():
        for count, batch in enumerate(order):
            data, eager_result = inputs[batch][count % 3], expected[batch][count % 3]
            context.synchronize()
            began = time.perf_counter()
            got = captured[batch](data)
            context.synchronize()
            spent += time.perf_counter() - began
            off = (got.double() - eager_result.double()).abs().max() / eager_result.double().abs().max()
            worst = torch.maximum(worst, torch.nan_to_num(off, nan=float("inf")))
    worst_deviation = float(worst)
    context.report.send(
        events.Replay,
        what=context.report.what,
        mode=title,
        replays=len(order),
        deviation=worst_deviation,
        tolerance=layer.tolerance,
        wrong=worst_deviation > layer.tolerance,
        seconds=spent / len(order),
        eager_seconds=sum(eager[batch] for batch in order) / len(order),
    )
