"""How vLLM's own kernels are tried and checked, with stand-ins for torch and the kernel. The kernels themselves need GPUs."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import context, events, vllm_kernels
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.job import Job, Params, Part


class Value(float):
    """A tensor of one element."""

    def double(self) -> Value:
        return self

    def abs(self) -> Value:
        return Value(abs(float(self)))

    def max(self) -> Value:
        return self

    def __sub__(self, other: float) -> Value:
        return Value(float(self) - float(other))


class Kernel(vllm_kernels._Subject):
    """Gives three times its input; what is replayed may differ by ``off``."""

    sizes = (1, 8)
    eager_off = 0.0
    closed = False

    def input(self, size: int, seed: int) -> Value:
        return Value(size + seed)

    def call(self, size: int) -> Any:
        return lambda data: Value(3 * data + self.eager_off)

    def expected(self, size: int, seed: int) -> Value:
        return Value(3 * (size + seed))

    def close(self) -> None:
        self.closed = True


class Graphs:
    """Graphs that replay their call, and err by ``off``."""

    off = 0.0

    def __init__(self, *_: Any) -> None:
        pass

    def capture(self, call: Any, static: Any) -> Any:
        call(static)
        return lambda data: Value(call(data) + self.off)

    def release(self) -> None:
        pass


def tried(
    monkeypatch: pytest.MonkeyPatch, capfd: Any, subject: Any, off: float = 0.0, backend: str = "nccl"
) -> list[events.Event]:
    job = Job([], "a1", first=0, here=1, world=1, master=("127.0.0.1", 29600), backend=backend)
    place = context.Context(job, 0)
    params: Params = {"kernel": "custom_all_reduce", "replays": 6}
    part = Part("graph-custom_all_reduce", "vllm_kernels", params, 60.0)
    place.begin_part(1, part, vllm_kernels.defaults)
    monkeypatch.setattr(context.Context, "synchronize", lambda _: None)
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    monkeypatch.setattr(vllm_kernels, "CudaGraphs", type("Graphs", (Graphs,), {"off": off}))
    monkeypatch.setitem(vllm_kernels._SUBJECTS, "custom_all_reduce", subject)
    vllm_kernels.work(place)
    return events.parse(capfd.readouterr().out)


def of(seen: list[events.Event], kind: type[events.E]) -> list[events.E]:
    return [event for event in seen if isinstance(event, kind)]


def test_a_good_kernel_is_captured_the_largest_size_first(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    kernel = Kernel()
    seen = tried(monkeypatch, capfd, lambda *_: kernel)
    assert [event.batch for event in of(seen, events.Capture)] == [8, 1]
    replays = of(seen, events.Replay)
    assert [(event.mode, event.replays, event.wrong) for event in replays] == [("custom_all_reduce", 6, False)] * 2
    steps = of(seen, events.Step)
    assert {event.part for event in steps} == {"graph-custom_all_reduce"}
    assert [event.phase for event in steps if not event.waiting] == [
        "eager", "eager", "eager", "capture", "capture", "replay", "replay", "release",
    ]  # fmt: skip
    assert kernel.closed


def test_replays_that_differ_are_wrong(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    seen = tried(monkeypatch, capfd, lambda *_: Kernel(), off=0.5)
    assert not any(event.wrong for event in of(seen, events.Eager))
    assert all(event.wrong for event in of(seen, events.Replay))


def test_a_kernel_that_is_wrong_without_graphs_is_seen_in_eager(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    subject = type("Wrong", (Kernel,), {"eager_off": 1.0})
    assert all(event.wrong for event in of(tried(monkeypatch, capfd, lambda *_: subject()), events.Eager))


def skipping(*_: Any) -> Kernel:
    raise vllm_kernels.Skipped("one rank: vLLM has nothing to reduce")


@pytest.mark.parametrize(
    ("subject", "backend", "reason"),
    [(skipping, "nccl", "one rank: vLLM has nothing to reduce"), (Kernel, "gloo", "there is no GPU")],
)
def test_what_is_not_tried_says_why(
    monkeypatch: pytest.MonkeyPatch, capfd: Any, subject: Any, backend: str, reason: str
) -> None:
    seen = tried(monkeypatch, capfd, subject, backend=backend)
    assert of(seen, events.Skipped) == [events.Skipped(0, "a1", "custom_all_reduce", reason)]
    assert not of(seen, events.Capture)


def test_what_is_not_installed_is_skipped() -> None:
    with pytest.raises(vllm_kernels.Skipped, match="vLLM is not installed"):
        vllm_kernels._need("vllm_of_no_such_name", "vLLM is not installed")


def test_what_vllm_leaves_to_nccl_proves_nothing() -> None:
    class Data:
        def numel(self) -> int:
            return 256

    assert vllm_kernels._answered(lambda data: 7)(Data()) == 7
    with pytest.raises(RuntimeError, match="leaves an all-reduce of 256 elements to NCCL"):
        vllm_kernels._answered(lambda data: None)(Data())
