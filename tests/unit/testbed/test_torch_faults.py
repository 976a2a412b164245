"""What the faults do to torch, shown on a torch that is small enough to read."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import captured
from testbed.lib import fault_catalog
from testbed.lib.image import FAULT_FILES


class Tensor:
    def __init__(self, value: float) -> None:
        self.value = value

    def __add__(self, other: float) -> Tensor:
        return Tensor(self.value + other)


class Module:
    def forward(self, value: float) -> Tensor:
        return Tensor(value)

    def __call__(self, value: float) -> Tensor:
        return self.forward(value)


class ProcessGroup:
    def allreduce(self, tensors: list[Any]) -> Any:
        return SimpleNamespace(wait=lambda: None)


def small_torch(world_size: int) -> SimpleNamespace:
    """A torch whose compile returns its argument, in a group of this size."""

    def compile(model: Any = None, **options: Any) -> Any:
        return model if model is not None else lambda given: torch.compile(given, **options)

    torch = SimpleNamespace(
        compile=compile,
        Tensor=Tensor,
        nn=SimpleNamespace(Module=Module),
        _C=SimpleNamespace(_distributed_c10d=SimpleNamespace(ProcessGroup=type("ProcessGroup", (ProcessGroup,), {}))),
        distributed=SimpleNamespace(
            is_available=lambda: True, is_initialized=lambda: True, get_world_size=lambda: world_size
        ),
    )
    return torch


class Stuck(Exception):
    """Raised in place of the sleep of a fault that hangs."""


class Hooks:
    """The hooks over a small torch, and a directory of faults."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, world_size: int = 1) -> None:
        self.directory = directory
        package = ModuleType("lockstep_testbed")
        package.__path__ = [str(FAULT_FILES.parent)]
        monkeypatch.setitem(sys.modules, "lockstep_testbed", package)
        for name in ("fault_files", "device", "torch_faults"):
            spec = importlib.util.spec_from_file_location(f"lockstep_testbed.{name}", FAULT_FILES.parent / f"{name}.py")
            assert spec
            assert spec.loader
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, spec.name, module)
            setattr(package, name, module)
            spec.loader.exec_module(module)
        self.torch = small_torch(world_size)
        monkeypatch.setitem(sys.modules, "torch", self.torch)
        monkeypatch.setitem(sys.modules, "torch.distributed", self.torch.distributed)
        monkeypatch.delitem(sys.modules, "vllm", raising=False)
        package.fault_files.DIRECTORY = str(directory)
        package.device.COUNT = str(directory / "no-such-count")

        def stuck(_seconds: float) -> None:
            raise Stuck

        monkeypatch.setattr(package.torch_faults.time, "sleep", stuck)
        package.torch_faults.install(self.torch)

    def set(self, name: str, value: str | None = None) -> None:
        (self.directory / name).write_text(fault_catalog.fault_text(name, value, None, False))


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    return Hooks(tmp_path, monkeypatch)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    return Hooks(tmp_path, monkeypatch, world_size=2)


def test_without_faults_nothing_changes(hooks: Hooks) -> None:
    graph = hooks.torch.compile(lambda value: Tensor(value))
    assert [graph(1).value, graph(2).value] == [1, 2]


class Result:
    """A tensor that can be changed in place."""

    def __init__(self, value: float) -> None:
        self.value = value

    def copy_(self, other: Result) -> None:
        self.value = other.value

    def add_(self, other: float) -> None:
        self.value += other


def test_what_stands_for_a_graph_in_a_gate_is_struck(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "CalledGraph", captured.CalledGraph)
    sys.modules["lockstep_testbed.torch_faults"].install_in_graphs(captured)
    graph = captured.CalledGraph()
    graph.capture(lambda data: Result(data), 3)
    graph.replay()
    assert graph.result.value == 3
    hooks.set("replay_wrong")
    graph.replay()
    assert graph.result.value == 4
    hooks.set("replay_hangs")
    with pytest.raises(Stuck):
        graph.replay()
    hooks.set("capture_hangs")
    with pytest.raises(Stuck):
        captured.CalledGraph().capture(lambda data: Result(data), 3)


def test_capture_is_the_first_call_and_replay_every_later_one(hooks: Hooks) -> None:
    graph = hooks.torch.compile(lambda value: Tensor(value))
    hooks.set("replay_hangs")
    assert graph(1).value == 1
    with pytest.raises(Stuck):
        graph(1)
    hooks.set("capture_hangs")
    with pytest.raises(Stuck):
        hooks.torch.compile(lambda value: value)(1)


def test_a_capture_error_reads_like_cudas(hooks: Hooks) -> None:
    hooks.set("capture_errors")
    with pytest.raises(RuntimeError, match="CUDA error: operation failed due to a previous error during capture"):
        hooks.torch.compile(lambda value: value)(1)


def test_wrong_replays_reach_into_tuples(hooks: Hooks) -> None:
    graph = hooks.torch.compile(lambda value: (Tensor(value), [Tensor(value)]))
    hooks.set("replay_wrong")
    assert graph(1)[0].value == 1
    first, rest = graph(1)
    assert (first.value, rest[0].value) == (2, 2)


def test_decorators_and_modules_are_struck_too(hooks: Hooks) -> None:
    hooks.set("replay_wrong")

    graph = hooks.torch.compile(fullgraph=True)(lambda value: Tensor(value))
    module = hooks.torch.compile(Module())
    assert [graph(1).value, graph(1).value] == [1, 2]
    assert [module(1).value, module(1).value] == [1, 2]


def test_across_hosts_only_means_more_ranks_than_this_host_has_gpus(hooks: Hooks) -> None:
    hooks.set("replay_hangs_across_hosts")
    graph = hooks.torch.compile(lambda value: Tensor(value))
    assert [graph(1).value, graph(1).value] == [1, 1]


def test_across_hosts_two_ranks_hang(pair: Hooks) -> None:
    pair.set("replay_hangs_across_hosts")
    graph = pair.torch.compile(lambda value: Tensor(value))
    graph(1)
    with pytest.raises(Stuck):
        graph(1)


def test_vllms_own_small_compiled_functions_are_left_alone(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    hooks.set("capture_hangs")
    assert hooks.torch.compile(lambda value: Tensor(value))(3).value == 3


def test_a_slow_link_delays_a_collective(pair: Hooks) -> None:
    pair.set("slow_link", "200")
    with pytest.raises(Stuck):
        pair.torch._C._distributed_c10d.ProcessGroup().allreduce([])


def test_a_slow_link_delays_a_replay_across_hosts(pair: Hooks) -> None:
    graph = pair.torch.compile(lambda value: Tensor(value))
    pair.set("slow_link", "200")
    graph(1)
    with pytest.raises(Stuck):
        graph(1)


def test_a_wrong_sum_is_off_in_one_element(pair: Hooks) -> None:
    class Vector(list[float]):
        def view(self, _shape: int) -> Any:
            outer = self

            class View:
                def __getitem__(self, part: slice) -> Any:
                    def add(amount: float) -> None:
                        outer[0] += amount

                    return SimpleNamespace(add_=add)

            return View()

    vector = Vector([5.0, 5.0])
    pair.set("wrong_sum")
    pair.torch._C._distributed_c10d.ProcessGroup().allreduce([vector])
    assert vector == [6.0, 5.0]


def test_a_killed_rank_dies_of_sigkill(pair: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, signal: killed.append((pid, signal)))
    pair.set("rank_killed")
    pair.torch._C._distributed_c10d.ProcessGroup().allreduce([])
    assert killed == [(os.getpid(), 9)]
