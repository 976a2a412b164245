"""Asking for stacks and answering, both ends with real processes over a store of keys; and what others may have put there."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.ray import ranks, stacks
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.codes import RankState
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.ranks import Rank, Sight
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.stacks import Answer, Request, Responder
from tests.machine import ENDLESS, PATIENCE, until
from tests.unit.module_utils.ray.rank_processes import rank_process, stop


class Store(dict[str, bytes]):
    """What the head's store does, without the head."""

    takes = True

    def put(self, key: str, value: bytes) -> bool:
        if self.takes:
            self[key] = value
        return self.takes

    def remove(self, key: str) -> None:
        self.pop(key, None)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library as it lies on a host, for the process that looks at the ranks."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "lockstep").symlink_to(Path(stacks.__file__).resolve().parents[1])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.setattr(stacks, "__package__", "lockstep.ray")


def responder(host: str, store: Store, folder: Path) -> Responder:
    return Responder(host, lambda: store, folder)


def test_both_ends(
    tmp_path: Path, library: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "LOOK_DEADLINE", PATIENCE)
    store = Store()
    answers: dict[str, Answer] = {}
    with rank_process(tmp_path / "1.out", 1) as rank:
        stop(rank.pid)
        asking = threading.Thread(target=lambda: answers.update(stacks.ask(store, ["a2"], deadline=2 * PATIENCE)))
        asking.start()
        until(lambda: stacks.REQUEST in store)
        responder("a2", store, tmp_path / "evidence").look_once(store)
        asking.join()
        sight = answers["a2"].sight
        assert sight is not None
        (seen,) = (one for one in sight.ranks if one.pid == rank.pid)
        assert (seen.rank, seen.state) == (1, RankState.STOPPED)
    assert (Path(sight.folder) / "threads.txt").exists()
    assert stacks.evidence_of("a2", answers["a2"]) == f"a2:{sight.folder}"
    assert stacks.REQUEST not in store, "a request that nobody waits for must not lie there for a host that comes later"
    assert sight.folder in capsys.readouterr().out


def test_a_request_is_answered_once(tmp_path: Path, library: None) -> None:
    store = Store({stacks.REQUEST: b'{"id": "ab12"}'})
    host = responder("a2", store, tmp_path / "evidence")
    host.look_once(store)
    assert store.pop(stacks.answer_key("a2"))
    host.look_once(store)
    assert stacks.answer_key("a2") not in store
    store[stacks.REQUEST] = b'{"id": "ab13"}'
    host.look_once(store)
    assert json.loads(store[stacks.answer_key("a2")])["id"] == "ab13"


def test_a_look_that_hangs_ends_at_its_deadline_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = tmp_path / "python"
    hangs.write_text(f"#!/bin/sh\nexec sleep {ENDLESS}\n", encoding="utf-8")
    hangs.chmod(0o755)
    monkeypatch.setattr(stacks.sys, "executable", str(hangs))
    monkeypatch.setattr(stacks, "LOOK_DEADLINE", 0.3)
    store = Store({stacks.REQUEST: b'{"id": "ab12"}'})
    responder("a2", store, tmp_path).look_once(store)
    assert stacks.parse_answer(store[stacks.answer_key("a2")], Request("ab12")) == Answer("ab12", None)


def test_who_does_not_answer_is_left_out_at_the_deadline() -> None:
    assert stacks.ask(Store(), ["a1", "a2"], deadline=0.5) == {}


def test_a_head_that_takes_no_request_costs_no_wait() -> None:
    store = Store()
    store.takes = False
    began = time.monotonic()
    assert stacks.ask(store, ["a1"], deadline=ENDLESS) == {}
    assert time.monotonic() - began < PATIENCE


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"no JSON",
        b"\xff\xfe",
        b"[" * 50_000,
        b'["id"]',
        b"{}",
        b'{"id": ""}',
        b'{"id": 12}',
        b'{"id": "../../etc"}',
        b'{"id": "ab12; rm"}',
        json.dumps({"id": "a" * 33}).encode(),
        json.dumps({"id": "ab", "more": "x" * stacks.ANSWER_LIMIT}).encode(),
    ],
)
def test_what_is_no_request(value: bytes | None) -> None:
    assert stacks.parse_request(value) is None


def test_a_newer_request_may_say_more() -> None:
    assert stacks.parse_request(b'{"id": "ab12", "depth": 3}') == Request("ab12")


def answer(**sight: object) -> bytes:
    return json.dumps({"id": "ab12", "sight": {"ranks": [], "folder": "", **sight}}).encode()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"{}",
        b'{"id": "other", "sight": null}',
        answer(ranks=[{"pid": "7"}]),
        answer(ranks=[{"pid": 7, "state": "dances"}]),
        answer(ranks=[{"pid": 7, "frames": [1]}]),
        answer(ranks=[{"pid": 1e400}]),
        answer(ranks={"pid": 7}),
        answer(folder=["/"]),
        answer(folder="x" * stacks.ANSWER_LIMIT),
    ],
)
def test_what_is_no_answer(value: bytes | None) -> None:
    assert stacks.parse_answer(value, Request("ab12")) is None


def test_an_answer_is_cut_to_size_and_prints() -> None:
    many = [{"pid": 7, "state": "runs", "rank": None, "frames": ["\x1b[31m" + "x" * 400] * 20}]
    found = stacks.parse_answer(answer(ranks=many, folder="/var/\x07" + "y" * 900), Request("ab12"))
    assert found is not None
    assert found.sight is not None
    assert len(found.sight.folder) == 300
    assert [len(frame) for frame in found.sight.ranks[0].frames] == [300] * 8
    assert all(text.isprintable() for text in (found.sight.folder, *found.sight.ranks[0].frames))
    crowd = answer(ranks=[{"pid": pid} for pid in range(ranks.MOST_RANKS + 9)])
    found = stacks.parse_answer(crowd, Request("ab12"))
    assert found is not None
    assert found.sight is not None
    assert len(found.sight.ranks) == ranks.MOST_RANKS


def test_the_longest_answer_of_a_host_fits() -> None:
    rank = Rank(1 << 22, RankState.UNKILLABLE, 65535, ("x" * 160,) * 3)
    whole = Answer("ab12" * 4, Sight((rank,) * ranks.MOST_RANKS, "/var/lib/lockstep/engine/evidence/x"))
    sent = json.dumps(stacks.as_json(whole)).encode()
    assert stacks.parse_answer(sent, Request(whole.id)) == whole


def test_a_request_from_before_the_start_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ends(Store):
        reads = 0

        def get(self, key: str, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
            self.reads += 1
            if self.reads > 2:
                raise SystemExit
            return super().get(key, default)

    store = Ends({stacks.REQUEST: b'{"id": "ab12"}'})
    host = responder("a2", store, tmp_path)
    monkeypatch.setattr(stacks, "PAUSE", 0.0)
    with pytest.raises(SystemExit):
        host.run()
    assert stacks.answer_key("a2") not in store
    assert os.listdir(tmp_path) == []
