from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import lock as rollout_lock
from tests.machine import PATIENCE

NOW = "2026-11-22T01:00:00Z"
MINE = {"run": "r2", "holder": "ada@ops1", "pid": 7, "take_over": []}
THEIRS = {
    "run": "r1",
    "holder": "bob@ops2",
    "pid": 9,
    "since": "2026-11-22T00:30:00Z",
    "heartbeat": "2026-11-22T00:59:52Z",
}
TAKEN = {"run": "r2", "holder": "ada@ops1", "pid": 7, "since": NOW, "heartbeat": NOW}


@pytest.mark.parametrize(
    ("existing", "claim", "action", "record"),
    [
        pytest.param(None, MINE, "take", TAKEN, id="free"),
        pytest.param(
            {**TAKEN, "since": "2026-11-22T00:10:00Z", "heartbeat": "2026-11-22T00:11:00Z"},
            MINE,
            "renew",
            {**TAKEN, "since": "2026-11-22T00:10:00Z"},
            id="mine: a sign of life",
        ),
        pytest.param({**TAKEN, "pid": 3}, MINE, "renew", TAKEN, id="my run goes on in another process"),
        pytest.param(THEIRS, MINE, "refuse", THEIRS, id="another's"),
        pytest.param(
            THEIRS, {**MINE, "take_over": ["r1"]}, "take", {**TAKEN, "taken_over": "r1"}, id="taken over by name"
        ),
        pytest.param(THEIRS, {**MINE, "take_over": ["r0"]}, "refuse", THEIRS, id="the wrong name"),
        pytest.param({}, MINE, "refuse", {}, id="a lock that names nobody is not free"),
    ],
)
def test_decide(existing: Any, claim: Any, action: str, record: Any) -> None:
    assert rollout_lock.decide(existing, claim, NOW) == rollout_lock.Decision(action, record)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("then", "text"),
    [
        ("2026-11-22T01:00:00Z", "0 s"),
        ("2026-11-22T00:58:01Z", "119 s"),
        ("2026-11-22T00:58:00Z", "2 minutes"),
        ("2026-11-21T22:59:00Z", "2 hours"),
        ("2026-11-19T01:00:00Z", "3 days"),
        ("2026-11-22T01:00:09Z", "0 s"),
        ("yesterday", "an unknown time"),
        (None, "an unknown time"),
    ],
)
def test_age(then: Any, text: str) -> None:
    assert rollout_lock.age(then, NOW) == text


def test_a_refusal_names_the_holder_the_age_and_the_remediation() -> None:
    stop = rollout_lock.refusal({"a1": THEIRS, "b1": THEIRS}, NOW)
    text = str(stop)
    assert "run r1 of bob@ops2 (pid 9) holds the lock on a1, b1 for 30 minutes" in text
    assert "last heartbeat 8 s ago" in text
    assert stop.cause.endswith("-e rollout_lock_take_over=r1")
    assert stop.next == "ansible-playbook playbooks/status.yml"


@pytest.mark.parametrize(
    ("requests", "action"),
    [
        ([], None),
        ([None, None], None),
        ([{"action": "pause"}, None], "pause"),
        ([{"action": "pause"}, {"action": "abort"}, {"action": "pause"}], "abort"),
        ([{"action": "dance"}], None),
    ],
)
def test_strongest(requests: Any, action: str | None) -> None:
    assert (rollout_lock.strongest(requests) or {}).get("action") == action


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rollout_lock, "LOCK", tmp_path / "s" / "lock.json")
    monkeypatch.setattr(rollout_lock, "ENDED", tmp_path / "s" / "lock-ended.json")
    monkeypatch.setattr(rollout_lock, "REQUEST", tmp_path / "s" / "rollout.json")
    monkeypatch.setattr(rollout_lock, "_TURNSTILE", tmp_path / "s" / ".turnstile")
    return tmp_path / "s"


def hold(run: str, *take_over: str) -> dict[str, Any]:
    return rollout_lock.apply({"do": "hold", "claim": {"run": run, "holder": "x", "take_over": list(take_over)}})


def test_hold_renew_refuse_release(state: Path) -> None:
    assert hold("r1")["action"] == "take"
    assert hold("r1")["action"] == "renew"
    refused = hold("r2")
    assert (refused["action"], refused["lock"]["run"]) == ("refuse", "r1")
    assert rollout_lock.apply({"do": "release", "run": "r2"})["action"] == "keep"
    assert rollout_lock.apply({"do": "read"})["lock"]["run"] == "r1"
    assert hold("r2", "r1")["lock"]["taken_over"] == "r1"
    released = {"action": "release", "lock": None, "request": None, "ended": ["r2"]}
    assert rollout_lock.apply({"do": "release", "run": "r2"}) == released
    assert rollout_lock.apply({"do": "release", "run": "r2"})["action"] == "keep"


def test_reading_writes_no_record(state: Path) -> None:
    assert rollout_lock.apply({"do": "read"}) == {"action": "read", "lock": None, "request": None, "ended": []}
    assert list(state.glob("*.json")) == []


def test_requests_come_back_with_the_lock(state: Path) -> None:
    pause = {"action": "pause", "by": "bob@ops2", "at": NOW, "reason": "peak"}
    assert rollout_lock.apply({"do": "request", "request": pause})["action"] == "write"
    assert rollout_lock.apply({"do": "request", "request": pause})["action"] == "keep"
    assert hold("r1")["request"] == pause
    assert rollout_lock.apply({"do": "request", "request": None}) | {"lock": None} == {
        "action": "write",
        "lock": None,
        "request": None,
        "ended": [],
    }


def test_the_last_runs_that_ended_are_remembered(state: Path) -> None:
    runs = [f"r{number}" for number in range(rollout_lock.ENDED_KEPT + 2)]
    for run in runs:
        hold(run)
        rollout_lock.apply({"do": "release", "run": run})
    assert rollout_lock.apply({"do": "read"})["ended"] == runs[2:]


def test_a_damaged_lock_is_not_a_free_one(state: Path) -> None:
    state.mkdir()
    rollout_lock.LOCK.write_text("{")
    with pytest.raises(records.RecordError, match=r"lock\.json"):
        hold("r1")


def claim_in_a_process(run: str, start: Any, results: Any) -> None:
    start.wait()
    results.put((run, hold(run)["action"]))


def test_of_many_claims_at_once_one_gets_it(state: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    runs = [f"r{n}" for n in range(12)]
    children = [context.Process(target=claim_in_a_process, args=(run, start, results)) for run in runs]
    for child in children:
        child.start()
    start.set()
    actions = dict(results.get(timeout=PATIENCE) for _child in children)
    for child in children:
        child.join()
    (winner,) = [run for run, action in actions.items() if action == "take"]
    assert sorted(actions.values()) == ["refuse"] * 11 + ["take"]
    assert json.loads(rollout_lock.LOCK.read_text())["run"] == winner
