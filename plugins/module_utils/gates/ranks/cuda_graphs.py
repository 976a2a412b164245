"""Captured graphs with collectives inside, replayed many times and compared with eager. Runs in a rank, under torch.

A small transformer layer stands for the model: projection, attention, projection, all-reduce, MLP, all-reduce, as in
tensor parallelism. Every rank holds the same weights times a factor of its own, so that each knows from its own eager part
alone what the all-reduced result must be: that separates a broken collective from a broken graph.

On a GPU a graph is a ``torch.cuda.CUDAGraph`` captured as vLLM does. On CPU there are no such graphs: a function under
``torch.compile`` stands in, its first call for a batch size being the capture and later calls the replay.

Modes, as vLLM's cudagraph modes: ``PIECEWISE`` has graphs around the collectives, ``FULL`` has the collectives inside.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import events
from .context import Context

WARM_UPS = 2
TOLERANCE = {"bfloat16": 2e-2, "float16": 5e-3, "float32": 1e-4}
"""Largest deviation, relative to the largest magnitude of the expected result."""
MODES = ("PIECEWISE", "FULL")


def defaults(backend: str) -> dict[str, Any]:
    """The parameters that a job may leave out.

    ``modes``; ``batches`` (batch sizes, as vLLM captures them); ``replays`` (of each graph); ``hidden``, ``heads`` and
    ``dtype`` of the layer; ``compile`` (capture also what torch.compile made; on CPU always so); ``compile_backend``
    (``auto``: inductor on a GPU, aot_eager on CPU, where inductor's C++ takes tens of seconds); ``capture_error_mode``.
    """
    on_gpu = backend == "nccl"
    return {
        "modes": list(MODES),
        "batches": [1, 2, 4, 8, 16, 32, 64, 128, 256] if on_gpu else [1, 4],
        "replays": 100 if on_gpu else 20,
        "hidden": 1024 if on_gpu else 64,
        "heads": 8 if on_gpu else 4,
        "dtype": "bfloat16" if on_gpu else "float32",
        "compile": True,
        "compile_backend": "auto",
        "capture_error_mode": "global",
    }


def work(context: Context) -> None:
    """Eager first; then, for each mode, capture every batch size, replay each, and replay them mixed."""
    import torch

    params = context.params
    layer = Layer(context, torch, params["hidden"], params["heads"], params["dtype"])
    graphs = _graphs(context, torch, layer)
    eager = {}
    for batch in params["batches"]:
        context.report.begin("eager", f"batch {batch}")
        eager[batch] = _eager(context, layer, batch, params["replays"])
    for variant in _variants(context):
        for mode in params["modes"]:
            _one_mode(context, layer, graphs, mode, variant, eager)
    context.report.begin("release", "graphs and their memory")
    graphs.release()


def _variants(context: Context) -> list[bool]:
    """Which code to capture: eager kernels, or what torch.compile made of them."""
    if context.backend != "nccl":
        return [True]
    return [False, True] if context.params["compile"] else [False]


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

    def deviation(self, got: Any, expected: Any) -> float:
        """Largest deviation relative to the largest magnitude of ``expected``; infinite for anything not finite."""
        found = float((got.double() - expected.double()).abs().max() / expected.double().abs().max())
        return found if found == found else float("inf")


def _factor(rank: int) -> float:
    """A power of two, so that scaling by it rounds nothing."""
    return 2.0 ** -(rank % 3)


def _eager(context: Context, layer: Layer, batch: int, replays: int) -> float:
    """Compare eager with the rank's own arithmetic. Returns seconds of one eager pass."""
    torch = layer.torch
    with torch.no_grad():
        worst = max(
            layer.deviation(layer.whole(layer.input(batch, seed)), layer.alone(layer.input(batch, seed)))
            for seed in range(2)
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


Replay = Callable[[Any], Any]


def _one_mode(context: Context, layer: Layer, graphs: Any, mode: str, compiled: bool, eager: dict[int, float]) -> None:
    title = f"{mode} of compiled code" if compiled and context.backend == "nccl" else mode
    params = context.params
    with layer.torch.no_grad():
        expected = {batch: [layer.whole(layer.input(batch, seed)) for seed in range(3)] for batch in params["batches"]}
    captured: dict[int, Replay] = {}
    for batch in sorted(params["batches"], reverse=True):  # the largest first, as vLLM does
        context.report.begin("capture", f"{title} batch {batch}")
        began = time.perf_counter()
        captured[batch] = graphs.capture(mode, batch, compiled)
        context.synchronize()
        spent = time.perf_counter() - began
        context.report.send(events.Capture, what=context.report.what, mode=title, batch=batch, seconds=spent)
    for batch in params["batches"]:
        context.report.begin("replay", f"{title} batch {batch}")
        _replay(context, layer, captured, title, [batch] * params["replays"], expected, eager)
    context.report.begin("replay", f"{title} batches mixed")
    order = random.Random(11).choices(params["batches"], k=params["replays"])
    _replay(context, layer, captured, title, order, expected, eager)


def _replay(
    context: Context,
    layer: Layer,
    captured: dict[int, Replay],
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
    deviation = float(worst)
    context.report.send(
        events.Replay,
        what=context.report.what,
        mode=title,
        replays=len(order),
        deviation=deviation,
        tolerance=layer.tolerance,
        wrong=deviation > layer.tolerance,
        seconds=spent / len(order),
        eager_seconds=sum(eager[batch] for batch in order) / len(order),
    )


def _graphs(context: Context, torch: Any, layer: Layer) -> Any:
    return (CudaGraphs if context.backend == "nccl" else CompiledGraphs)(context, torch, layer)


class CompiledGraphs:
    """On CPU: a compiled function for each batch size; its first call stands for the capture."""

    def __init__(self, context: Context, torch: Any, layer: Layer) -> None:
        self.layer = layer
        self.torch = torch
        torch._dynamo.config.recompile_limit = 256
        backend = context.params["compile_backend"]
        self.options = {"backend": "aot_eager" if backend == "auto" else backend, "dynamic": False}

    def capture(self, mode: str, batch: int, compiled: bool) -> Replay:
        data = self.layer.input(batch, 0)
        with self.torch.no_grad():
            return self._whole(data) if mode == "FULL" else self._pieces(data)

    def release(self) -> None:
        """Drop everything compiled."""
        self.torch._dynamo.reset()

    def _code(self, plain: Any) -> Any:
        return self.torch.compile(plain, **self.options)

    def _whole(self, data: Any) -> Replay:
        whole: Replay = self._code(self.layer.whole)
        whole(data)
        return whole

    def _pieces(self, data: Any) -> Replay:
        """Captured without their collectives, so that a rank that hangs here hangs alone."""
        attention, mlp, reduce = self._code(self.layer.attention), self._code(self.layer.mlp), self.layer.reduce
        attention(data)
        mlp(data)

        def replay(data: Any) -> Any:
            data = data + reduce(attention(data))
            return data + reduce(mlp(data))

        return replay


class CudaGraphs:
    """On a GPU: CUDA graphs in one shared memory pool, with static inputs."""

    def __init__(self, context: Context, torch: Any, layer: Layer) -> None:
        self.context = context
        self.torch = torch
        self.layer = layer
        self.pool = torch.cuda.graph_pool_handle()
        self.kept: list[Any] = []
        backend = context.params["compile_backend"]
        self.options = {"backend": "inductor" if backend == "auto" else backend, "dynamic": True}
        self._compiled: dict[str, Any] = {}

    def capture(self, mode: str, batch: int, compiled: bool) -> Replay:
        """Graphs of one batch size in one mode."""
        attention, mlp = self._code("attention", compiled), self._code("mlp", compiled)
        reduce = self.layer.reduce
        if mode == "FULL":
            return self._graph(lambda data: self._layer(attention, mlp, data), batch)
        first = self._graph(attention, batch)
        second = self._graph(mlp, batch)

        def replay(data: Any) -> Any:
            data = data + reduce(first(data))
            return data + reduce(second(data))

        return replay

    def release(self) -> None:
        """Free every graph; the pool goes back once the last of its graphs is gone."""
        self.context.synchronize()
        self.kept.clear()
        if self._compiled:  # the first use of dynamo loads it, which takes seconds
            self._compiled.clear()
            self.torch._dynamo.reset()
        self.torch.cuda.empty_cache()

    def _layer(self, attention: Any, mlp: Any, data: Any) -> Any:
        data = data + self.layer.reduce(attention(data))
        return data + self.layer.reduce(mlp(data))

    def _code(self, name: str, compiled: bool) -> Any:
        plain = getattr(self.layer, name)
        if not compiled:
            return plain
        if name not in self._compiled:
            self._compiled[name] = self.torch.compile(plain, **self.options)
        return self._compiled[name]

    def _graph(self, call: Any, batch: int) -> Replay:
        torch = self.torch
        static = self.layer.input(batch, 0)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.no_grad(), torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                call(static)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        mode = self.context.params["capture_error_mode"]
        with torch.no_grad(), torch.cuda.graph(graph, pool=self.pool, capture_error_mode=mode):
            result = call(static)
        self.kept.append((graph, static, result))
        return self._replay(len(self.kept) - 1)

    def _replay(self, index: int) -> Replay:
        def replay(data: Any) -> Any:
            graph, static, result = self.kept[index]
            static.copy_(data)
            graph.replay()
            return result

        return replay
