"""Waiting: when it ends, with a clock and samples that are given."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.ray import wait as ray_wait
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.assessment import Observation, assess
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.codes import WaitCode
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.gcs import Node, Table
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.peer_status import HostStatus
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.shape import Shape

PEERS = {"a1": "10.0.0.11", "a2": "10.0.0.12"}
SHAPE = Shape(PEERS, 2, head="10.0.0.11", head_host="a1")
A1, A2 = (Node(f"id-{host}", address, host=host, resources={"GPU": 1}) for host, address in PEERS.items())
READY, JOINING, REFUSED = (
    Observation(Table("up", (A1, A2))),
    Observation(Table("up", (A1,))),
    Observation(Table("refused")),
)


class Cluster:
    """Samples at 0.1 s, 0.2 s, …; the last one stays. Time passes only in sleeps."""

    def __init__(self, samples: Iterable[Observation]) -> None:
        self.samples, self.now, self.closed = list(samples), 0.0, False

    def sample(self) -> Observation:
        return self.samples.pop(0) if len(self.samples) > 1 else self.samples[0]

    def close(self) -> None:
        self.closed = True

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def wait(monkeypatch: pytest.MonkeyPatch, samples: Iterable[Observation], deadline: float = 60) -> ray_wait.Waited:
    cluster = Cluster(samples)
    monkeypatch.setattr(ray_wait, "_Observer", lambda shape: cluster)
    waited = ray_wait.wait(SHAPE, deadline=deadline, clock=lambda: cluster.now, sleep=cluster.sleep)
    assert cluster.closed
    return waited


def test_it_ends_as_soon_as_the_hosts_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = wait(monkeypatch, [JOINING, JOINING, READY])
    assert (waited.ready, waited.code, waited.reason) == (True, WaitCode.READY, "")
    assert waited.seconds == pytest.approx(0.2)


def test_a_state_that_no_waiting_helps_ends_it_early_but_not_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = wait(monkeypatch, [REFUSED])
    assert (waited.ready, waited.code) == (False, WaitCode.HOPELESS)
    assert waited.seconds == pytest.approx(2.0, abs=0.11)


def test_such_a_state_that_passes_within_two_seconds_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = wait(monkeypatch, [REFUSED] * 18 + [READY])
    assert (waited.ready, waited.seconds) == (True, pytest.approx(1.8))


def test_the_deadline_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = wait(monkeypatch, [JOINING], deadline=5)
    assert (waited.ready, waited.code, waited.seconds) == (False, WaitCode.DEADLINE, pytest.approx(5.0))
    assert [one.host for one in waited.missing] == ["a2"]


def test_impossible_is_reported_without_looking():
    waited = ray_wait.wait(Shape(PEERS, 3), deadline=60)
    assert (waited.ready, waited.code, waited.seconds) == (False, "impossible", 0.0)


def test_result_can_be_written_as_json():
    assessment = assess(SHAPE, JOINING)
    waited = ray_wait.Waited(False, WaitCode.DEADLINE, "a2", 1.23456, assessment.counted, assessment.missing)
    record = json.loads(json.dumps(waited.as_dict()))
    assert record["code"] == "deadline"
    assert (record["seconds"], record["nodes"][0]["host"]) == (1.235, "a1")
    assert record["missing"] == [{"host": "a2", "code": "joining", "reason": "is not in Ray's table", "final": False}]


class Asked:
    """The hosts that the waiter asks, over a table of Ray's that is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, table: Table, shape: Shape = SHAPE) -> None:
        self.table, self.asked = table, list[tuple[str, str]]()
        monkeypatch.setattr(ray_wait.gcs, "Cluster", lambda *_: types.SimpleNamespace(table=lambda: self.table))
        monkeypatch.setattr(ray_wait.gcs, "token", lambda: None)
        monkeypatch.setattr(ray_wait.gcs, "answers", lambda address, _port: address != "10.0.0.12")
        monkeypatch.setattr(ray_wait.peer_status, "ask", self._ask)
        self.observer = ray_wait._Observer(shape)

    def _ask(self, host: str, address: str) -> HostStatus:
        self.asked.append((host, address))
        return HostStatus(host, driver="550.90.07")

    def sample(self) -> Observation:
        """A sample, and the answers to its questions with the next one."""
        seen = self.observer.sample()
        for asking in self.observer._asking.values():
            asking.result(10)
        return seen


def test_a_missing_host_is_asked_once_in_a_while_and_its_status_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Asked(monkeypatch, Table("up", (A1,)))
    assert case.sample().reported == {}
    assert case.sample().reported == {"a2": HostStatus("a2", driver="550.90.07")}
    case.sample()
    assert case.asked == [("a2", "10.0.0.12")]


def test_a_head_that_is_down_is_asked_though_it_is_no_member(monkeypatch: pytest.MonkeyPatch) -> None:
    only_a2 = Shape({"a2": PEERS["a2"]}, 1, head="10.0.0.11", head_host="a1")
    case = Asked(monkeypatch, Table("down"), only_a2)
    case.sample()
    assert sorted(case.asked) == [("a1", "10.0.0.11"), ("a2", "10.0.0.12")]


def test_a_host_that_has_joined_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Asked(monkeypatch, Table("up", (A1,)))
    case.sample()
    assert case.sample().reported
    monkeypatch.setattr(ray_wait.gcs, "answers", lambda *_: True)
    case.table = Table("up", (A1, A2))
    case.sample()
    assert case.sample().reported == {}


def test_hosts_that_count_are_connected_to_before_they_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Asked(monkeypatch, Table("up", (A1, A2))).sample()
    assert seen.silent == {"a2"}
    assert not assess(SHAPE, seen).ready
