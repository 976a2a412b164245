"""The door for a probe's answer: a part that is not what it should be is unread, and the rest of the host is there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.typed import BadAnswer
from ansible_collections.lockstep.vllm.plugins.module_utils.host import answer, probe
from tests.unit.module_utils.host.host_states import HEAD, WORKER


@pytest.mark.parametrize("state", [HEAD, WORKER], ids=["head", "worker"])
def test_a_good_answer_comes_through_as_it_is(state: dict[str, Any]) -> None:
    assert answer.read(state) == state


def test_what_this_machine_answers_comes_through() -> None:
    asked: Any = {
        "preflight": True,
        "ports": [1],
        "peers": {"localhost": "127.0.0.1"},
        "ray": True,
        "driver_also": ["xids"],
    }
    state = json.loads(json.dumps(probe.collect(asked)))
    assert answer.read(state) == state


@pytest.mark.parametrize(
    ("part", "value", "problem"),
    [
        ("engine", {"phase": "serving", "findings": [1]}, "engine.findings.0 is a number, expected an object"),
        ("engine", {"phase": "serving", "restarts": 10**400}, "engine.restarts is a number"),
        ("engine", {"phase": "done"}, "engine.phase is 'done', expected one of"),
        ("engine", {"phase": "serving", "ladder": {"full": {"verdict": "?"}}}, "engine.ladder.full.verdict is '?'"),
        ("change", {"change": {"from": None, "to": {}}}, "change.change.to has no version"),
        ("ray", {"head": "up", "nodes": [{"alive": True}]}, "ray.nodes.0 has no host"),
        ("ray", {"head": "up", "nodes": [{"host": "a1", "gpus": "8"}]}, "ray.nodes.0.gpus is text, expected a number"),
        ("units", {"haproxy.service": [1]}, "units.haproxy.service is a list, expected an object"),
        ("quarantine", {"owner": {"x": 1}}, "quarantine.owner is an object, expected text"),
        ("lock", [1], "lock is a list, expected an object"),
        ("driver", {"gpus": {}}, "driver.gpus is an object, expected a list"),
        ("driver", {"error": ["x"]}, "driver.error is a list, expected text"),
        ("manifest", {"gpu_host": {"drifted": "x"}}, "manifest.gpu_host.drifted is text, expected a list"),
    ],
)
def test_a_bad_part_is_unread_and_named(part: str, value: Any, problem: str) -> None:
    read: Any = answer.read({**HEAD, part: value})
    assert read[part]["error"].startswith(problem)
    assert {**read, part: HEAD.get(part)} == {**HEAD, part: HEAD.get(part)}
    assert answer.part({**HEAD, part: value}, part) == {}


@pytest.mark.parametrize(
    ("stamps", "problem"),
    [({"host": [1], "replica": None}, "stamps.host is a list"), ([1], "stamps.host cannot be found")],
)
def test_a_bad_stamp_is_none(stamps: Any, problem: str) -> None:
    read: Any = answer.read({**HEAD, "stamps": stamps})
    assert read["stamps"]["host"]["error"].startswith(problem)


@pytest.mark.parametrize("value", [None, 7, "x", [], {"clock": "now"}, {"fingerprint": []}, {"fingerprint_digest": 7}])
def test_what_is_no_answer_of_a_probe_is_the_host_s_failure(value: Any) -> None:
    with pytest.raises(BadAnswer):
        answer.read(value)
