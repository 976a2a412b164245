"""A call captured once and replayed: a CUDA graph on a GPU, and what stands for one on CPU. Runs in a rank, under torch.

Dynamo, which takes seconds to load, is touched only where code is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .context import Context

WARM_UPS = 2
Call = Callable[[Any], Any]


def deviation(got: Any, expected: Any) -> float:
    """Largest deviation relative to the largest magnitude of ``expected``; infinite for anything not finite."""
    found = float((got.double() - expected.double()).abs().max() / expected.double().abs().max())
    return found if found == found else float("inf")


class CudaGraphs:
    """On a GPU: ``torch.cuda.CUDAGraph`` in one shared memory pool, with static inputs, captured as vLLM does."""

    def __init__(self, context: Context, torch: Any) -> None:
        self._context = context
        self._torch = torch
        self._pool = torch.cuda.graph_pool_handle()
        self._kept: list[Any] = []

    def capture(self, call: Call, static: Any) -> Call:
        """Capture ``call(static)``; gives the replay, which takes data of the same shape."""
        torch = self._torch
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.no_grad(), torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                call(static)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph, pool=self._pool, capture_error_mode="global"):
            result = call(static)
        self._kept.append((graph, static, result))
        return self._replay(len(self._kept) - 1)

    def release(self) -> None:
        """Free every graph; the pool goes back once the last of its graphs is gone."""
        self._context.synchronize()
        self._kept.clear()
        self._torch.cuda.empty_cache()

    def _replay(self, index: int) -> Call:
        def replay(data: Any) -> Any:
            graph, static, result = self._kept[index]
            static.copy_(data)
            graph.replay()
            return result

        return replay


class CalledGraph:
    """On CPU, where there are no graphs: the call that was made while it was "captured", made again by each replay."""

    def __init__(self) -> None:
        self._call: Call | None = None
        self._static: Any = None
        self.result: Any = None

    def capture(self, call: Call, static: Any) -> None:
        """Call it for the first time."""
        self._call, self._static = call, static
        self.result = call(static)

    def replay(self) -> None:
        """Call it again, on what the static input holds now; the result lies where the first one lay."""
        assert self._call is not None
        self.result.copy_(self._call(self._static))


class CalledGraphs:
    """``CalledGraph`` in the place of ``CudaGraphs``."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def capture(self, call: Call, static: Any) -> Call:
        """As ``CudaGraphs.capture``."""
        graph = CalledGraph()
        with self._torch.no_grad():
            graph.capture(call, static)

        def replay(data: Any) -> Any:
            static.copy_(data)
            graph.replay()
            return graph.result

        return replay

    def release(self) -> None:
        """Nothing is held."""


class Compiler:
    """torch.compile, where it is asked for: by inductor on a GPU, by aot_eager on CPU, where inductor takes tens of seconds."""

    def __init__(self, torch: Any, wanted: bool, on_gpu: bool) -> None:
        self._torch = torch
        self._wanted = wanted
        self._on_gpu = on_gpu
        self._backend = "inductor" if on_gpu else "aot_eager"
        self._made: dict[str, Call] = {}

    def code(self, name: str, plain: Call) -> Call:
        """``plain``, or what torch.compile makes of it, once for each name."""
        if not self._wanted:
            return plain
        if name not in self._made:
            self._torch._dynamo.config.recompile_limit = 256
            self._made[name] = self._torch.compile(plain, backend=self._backend, dynamic=self._on_gpu)
        return self._made[name]

    def release(self) -> None:
        """Drop everything compiled."""
        if self._made:
            self._made.clear()
            self._torch._dynamo.reset()
