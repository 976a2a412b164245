"""Events survive the way from a rank to its report, and a rank classifies its own error."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import command_parts
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import failure_analysis
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import context, events, launcher, main
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.job import Job, Part

EVENTS = [
    events.Started(0, "a1", "nccl", "NVIDIA H200", "2.27.5", "2.13.0", "13.0", "nvlink", "ib"),
    events.Step(0, "a1", 3, "capture", "FULL batch 4", True, 1000.5, "graph"),
    events.Error(0, "a1", 3, "capture", "FULL batch 4", "own", "RuntimeError", "CUDA error", 1001.0),
    events.Ended(0, "a1", -9, 1002.0),
    events.LocalGemm(0, "a1", 2),
    events.Check(0, "a1", "broadcast", "bfloat16", 64, 1, 5, 4.0, 3.0, (1, 3)),
    events.Busbw(0, "a1", "all_reduce", 1 << 20, 0.5, 0.1),
    events.Eager(0, "a1", "batch 4", 4, 0.1, 0.02, True, 0.001),
    events.Capture(0, "a1", "FULL batch 4", "FULL", 4, 2.5),
    events.Replay(0, "a1", "FULL batch 4", "FULL", 20, 0.0, 0.02, False, 0.001, 0.002),
    events.Skipped(0, "a1", "symmetric_memory", "there is no GPU"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_survives_its_line(event: events.Event) -> None:
    assert events.parse(events.line(event).decode()) == [event]


def test_every_kind_of_event_is_tested() -> None:
    assert {type(event) for event in EVENTS} == set(events._NAMES)


def test_other_lines_and_torn_ones_are_passed_over() -> None:
    line = events.line(EVENTS[0]).decode()
    unknown = json.dumps({"event": "unheard_of", "rank": 0, "host": "a1"})
    lacking = json.dumps({"event": "end", "rank": 0, "host": "a1"})
    text = "\n".join(["NCCL INFO", line[: len(line) // 2], unknown, lacking, '{"no": "event"}', line])
    assert events.parse(text) == [EVENTS[0]]


def test_a_reporter_waits_for_all_between_two_steps(capfd: pytest.CaptureFixture[str]) -> None:
    waited: list[int] = []
    report = context.Reporter(1, "a2", waited.append)
    report.load()
    report.begin("init", "store")
    report.part_begins(0, "nccl")
    report.begin("check")
    seen = events.parse(capfd.readouterr().out)
    steps = [
        (each.step, each.phase, each.what, each.waiting, each.part) for each in seen if isinstance(each, events.Step)
    ]
    assert steps == [
        (0, "load", "torch", False, ""),
        (1, "init", "store", False, ""),
        (1, "init", "store", True, ""),
        (2, "check", "", False, "nccl"),
    ]
    assert waited == [1]
    assert {(event.rank, event.host) for event in seen} == {(1, "a2")}


def test_a_part_s_time_begins_when_all_ranks_have_come_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv(command_parts.PARTS_HANDLE, str(writer))
    os.set_blocking(reader, False)
    seen: list[object] = []

    def reported() -> bytes:
        try:
            return os.read(reader, 8)
        except BlockingIOError:
            return b""

    report = context.Reporter(0, "a1", lambda step: seen.append(reported()))
    report.part_begins(0, "nccl")
    report.begin("check")
    report.part_begins(1, "graph")
    report.begin("eager")
    assert seen == [b""]
    assert reported() == bytes([1])
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        # gloo of torch 2.11, when the peer raised and when it was killed
        (
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Read error [127.0.0.1]:56729: "
            "Connection reset by peer",
            "peer_lost",
        ),
        # gloo of torch 2.13
        (
            "Connection closed by peer [10.89.78.12]:4431. This is typically caused by a remote worker crashing. "
            "Check the logs of the remote worker before reporting an error. GLHF! 🏖️",
            "peer_lost",
        ),
        # NCCL 2.27
        (
            "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
            "peer_lost",
        ),
        ("[..] Broken pipe", "peer_lost"),
        ("CUDA error: operation failed due to a previous error during capture", "own"),
        ("backend nccl was asked for, and torch.cuda.is_available() is false on this host", "own"),
        ("", "own"),
    ],
)
def test_a_rank_distinguishes_its_own_error_from_a_lost_peer(message: str, code: str) -> None:
    assert main.error_code(RuntimeError(message)) == code


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="wants a Python without torch")
def test_ranks_without_torch_report_why_they_failed(tmp_path: Path) -> None:
    """The real ranks, as a host starts them."""
    (tmp_path / "lockstep").symlink_to(Path(main.__file__).parents[2])
    parts = [Part("nccl", "collectives", {}, 60.0), Part("graph", "graphs", {}, 60.0)]
    job = Job(parts, "a1", 0, 2, 2, ("127.0.0.1", 29600))
    report = launcher.run(job, launcher.Launch(python=sys.executable, library=str(tmp_path)), [])
    errors = report.of(events.Error)
    assert errors
    assert {(error.code, error.exception, error.phase) for error in errors} == {("own", "ModuleNotFoundError", "init")}
    assert report.of(events.Step)[0].phase == "load"
    assert 1 in {end.status for end in report.of(events.Ended)}
    failure = failure_analysis.analyse([report])
    assert failure is not None
    assert (failure.kind, failure.hosts) == ("error", ("a1",))
    assert "No module named 'torch'" in failure.cause


def test_a_rank_knows_its_place() -> None:
    job = Job([], "a2", first=2, here=2, world=4, master=("10.0.0.1", 29600))
    place = context.Context(job, 3)
    assert (place.rank, place.local, place.world) == (3, 1, 4)
    assert main._environment(job, 3) == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29600",
    }
    assert context.links(on_gpu=False) == {"local_link": "cpu", "network_link": "cpu"}
    assert os.environ.get(main.JOB) is None
