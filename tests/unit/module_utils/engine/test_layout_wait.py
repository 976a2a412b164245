"""Which layout is waited for and how long, and when a better one takes over: over a clock that is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import state
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.cluster import Members, ReplicaCluster
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.config import Config, Deadlines, Proof
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.layout_wait import LayoutWait, MoveUp
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.layouts import Choice, Layout, Policy
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.reporter import Reporter
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.states import GiveUp
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.codes import WaitCode
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.wait import Waited

LARGE, SMALL = Layout("large", 4), Layout("small", 2)


def config(*layouts: Layout, **policy: Any) -> Config:
    deadlines = Deadlines(wait=100)
    return Config("/m", "tiny", layouts, Proof("x"), policy=Policy(**policy), deadlines=deadlines)


class Cluster:
    """Its GPUs by the time of a clock that goes on with each wait."""

    def __init__(self, gpus: Callable[[float], int], hopeless: tuple[str, ...] = ()) -> None:
        self.now, self._gpus, self._hopeless = 0.0, gpus, hopeless

    def members(self) -> Members:
        return Members(True, gpus=self._gpus(self.now))

    def wait(self, layout: Layout, deadline: float, report: Callable[[str], None]) -> Waited:
        ends = self.now + deadline
        while True:
            if self._gpus(self.now) >= layout.gpus:
                return Waited(True, WaitCode.READY, "", 0.0, (), ())
            reason = f"{layout.name}: a2 is missing"
            report(reason)
            if layout.name in self._hopeless:
                return Waited(False, WaitCode.HOPELESS, reason, 0.0, (), ())
            if self.now >= ends:
                return Waited(False, WaitCode.DEADLINE, reason, deadline, (), ())
            self.now += 1

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records, "ENGINE_STATE", tmp_path / "engine.json")
    monkeypatch.setattr(state, "MOVE_UP", tmp_path / "requests" / "move-up.json")
    monkeypatch.setattr(state, "MOVED_UP", tmp_path / "moved-up.json")
    return tmp_path


def choose(cluster: Cluster, *layouts: Layout, **policy: Any) -> Layout:
    wait = LayoutWait(
        config(*layouts, **policy), cast(ReplicaCluster, cluster), Reporter(), lambda: cluster.now, cluster.sleep
    )
    return wait.choose()


def test_preferred_layout_starts_when_its_gpus_are_there() -> None:
    cluster = Cluster(lambda now: 4 if now >= 7 else 2)
    assert choose(cluster, LARGE, SMALL, patience=20) == LARGE
    assert cluster.now == 7


def test_smaller_layout_starts_when_patience_is_over() -> None:
    cluster = Cluster(lambda now: 2)
    assert choose(cluster, LARGE, SMALL, patience=20) == SMALL
    assert cluster.now == 20


def test_smaller_layout_starts_at_once_where_waiting_cannot_help() -> None:
    cluster = Cluster(lambda now: 2, hopeless=("large",))
    assert choose(cluster, LARGE, SMALL, patience=20) == SMALL
    assert cluster.now == 0


def test_preferred_layout_is_still_taken_when_it_comes_after_patience() -> None:
    cluster = Cluster(lambda now: 4 if now >= 50 else 1)
    assert choose(cluster, LARGE, SMALL, patience=20) == LARGE
    assert cluster.now >= 50


@pytest.mark.parametrize(("layouts", "latest"), [((LARGE,), 100), ((LARGE, SMALL), 101)])
def test_nobody_within_the_deadline(layouts: tuple[Layout, ...], latest: float) -> None:
    cluster = Cluster(lambda now: 1)
    with pytest.raises(GiveUp, match=r"large cannot start \(deadline\): large: a2 is missing"):
        choose(cluster, *layouts, patience=20)
    assert 100 <= cluster.now <= latest


def test_the_only_layout_is_given_up_where_waiting_cannot_help() -> None:
    with pytest.raises(GiveUp, match=r"large cannot start \(hopeless\)"):
        choose(Cluster(lambda now: 1, hopeless=("large",)), LARGE)


def moves(current: Layout, gpus: Callable[[float], int], until: float, **policy: Any) -> list[tuple[float, Choice]]:
    """Each choice that differs from the one before, with its time; the clock goes on by half a second."""
    cluster = Cluster(gpus)
    move_up = MoveUp(config(LARGE, SMALL, **policy), current, cluster.members, lambda: cluster.now)
    found: list[tuple[float, Choice]] = []
    while cluster.now <= until:
        choice = move_up.choose()
        if choice is not None and (not found or found[-1][1] != choice):
            found.append((cluster.now, choice))
        cluster.now += 0.5
    return found


def test_moves_up_once_the_gpus_have_stayed() -> None:
    found = moves(SMALL, lambda now: 4 if now >= 9 else 2, 21, stable_for=12)
    assert found == [
        (0.0, Choice(None, "2 of the 4 GPUs of large are there")),
        (9.0, Choice(None, "large could serve, its GPUs are to stay for 12 s first")),
        (21.0, Choice(LARGE, "")),
    ]


def test_gpus_that_go_again_start_the_count_anew() -> None:
    found = moves(SMALL, lambda now: 2 if 9 <= now < 12 else 4, 25, stable_for=12)
    assert [moment for moment, choice in found if choice.layout] == [24.0]


def test_by_command_it_waits_for_the_request_and_fulfils_it_once() -> None:
    state.request_move_up()
    found = moves(SMALL, lambda now: 4, 3, stable_for=0, move_up="command")
    assert found[0] == (0.0, Choice(LARGE, ""))
    assert found[1][1].layout is None
    assert "it moves up by command: python3 -m lockstep.engine.cli move-up" in found[1][1].reason


def test_preferred_layout_has_nowhere_to_move_and_forgets_a_request() -> None:
    state.request_move_up()
    assert moves(LARGE, lambda now: 4, 3) == []
    assert not state.move_up_requested()
    state.request_move_up()
    assert state.move_up_requested(), "the next one is another request"


def test_a_request_stays_where_root_alone_writes(paths: Path) -> None:
    """The supervisor runs as another user than who asks: it only remembers what it has followed."""
    state.request_move_up()
    (paths / "requests").chmod(0o555)
    state.follow_move_up()
    assert state.MOVE_UP.exists()
    assert not state.move_up_requested()
