"""What stands for a graph on CPU, and that dynamo is touched only where code is compiled."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import captured, cuda_graphs


class Tensor:
    def __init__(self, value: float) -> None:
        self.value = value

    def copy_(self, other: Tensor) -> None:
        self.value = other.value


class Dynamo:
    """torch, whose dynamo nobody may touch."""

    no_grad = staticmethod(contextlib.nullcontext)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"torch.{name} was touched")


def test_a_replay_calls_again_on_the_new_data_and_lies_where_the_first_lay() -> None:
    graphs = captured.CalledGraphs(Dynamo())
    replay = graphs.capture(lambda data: Tensor(data.value * 2), Tensor(1))
    first = replay(Tensor(3))
    assert first.value == 6
    assert replay(Tensor(4)) is first
    assert first.value == 8
    graphs.release()


def test_plain_code_touches_no_dynamo() -> None:
    compiler = captured.Compiler(Dynamo(), False, on_gpu=True)

    def plain(data: Any) -> Any:
        return data

    assert compiler.code("mlp", plain) is plain
    compiler.release()


def test_compiled_code_is_made_once_and_dropped() -> None:
    made: list[Any] = []
    reset: list[int] = []

    def compile(plain: Any, **options: Any) -> Any:
        made.append(options)
        return lambda data: data

    dynamo = SimpleNamespace(config=SimpleNamespace(), reset=lambda: reset.append(1))
    torch = SimpleNamespace(_dynamo=dynamo, compile=compile)
    compiler = captured.Compiler(torch, True, on_gpu=True)
    assert compiler.code("mlp", lambda data: data) is compiler.code("mlp", lambda data: data)
    assert made == [{"backend": "inductor", "dynamic": True}]
    compiler.release()
    compiler.release()
    assert reset == [1]
    assert captured.Compiler(torch, True, on_gpu=False).code("mlp", lambda data: data)
    assert made[1] == {"backend": "aot_eager", "dynamic": False}


def test_batch_sizes_of_compiled_code_differ_in_kind() -> None:
    assert cuda_graphs.batches_of(compiled=True, on_gpu=True) == [1, 8, 256]
    assert cuda_graphs.batches_of(compiled=False, on_gpu=True) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert cuda_graphs.batches_of(compiled=True, on_gpu=False) == [1, 4]
