"""Who keeps an engine from generating: a table of what hosts saw, and who is named."""

from __future__ import annotations

import json

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import suspect
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.record import EngineState, Where
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.states import Phase, SuspectCode
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.suspect import OwnProcess
from ansible_collections.lockstep.vllm.plugins.module_utils.host import answer as host_answer
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.codes import RankState
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.ranks import Rank, Sight
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.stacks import Answer

STOPPED, UNKILLABLE = RankState.STOPPED, RankState.UNKILLABLE
REDUCE, FORWARD, READ = "all_reduce (c10d.py:2)", "forward (model.py:7)", "recv (socket.py:3)"
FOLDER = "/var/lib/lockstep/engine/evidence/x"


def rank(number: int | None, frame: str = "", state: RankState = RankState.RUNS) -> Rank:
    return Rank(100 + (number or 0), state, number, (frame,) if frame else ())


def host(*seen: Rank) -> Answer:
    return Answer("ab12", Sight(seen, FOLDER))


COULD_NOT = Answer("ab12", None)
TABLE = [
    ("a stopped rank", {"a1": host(rank(0)), "a2": host(rank(1, "", STOPPED))},
     SuspectCode.STOPPED, "rank 1 on a2 (pid 101) is stopped (state T)", [Where("a2", 1, 101)]),
    ("stopped before stuck, silent or odd",
     {"a1": host(rank(0, REDUCE), rank(2, REDUCE, UNKILLABLE)), "a2": host(rank(1, FORWARD, STOPPED))},
     SuspectCode.STOPPED, "rank 1 on a2 (pid 101) is stopped (state T)", [Where("a2", 1, 101)]),
    ("two stopped", {"a1": host(rank(0)), "a2": host(rank(1, "", STOPPED), rank(2, "", STOPPED))}, SuspectCode.STOPPED,
     "rank 1 on a2 (pid 101), rank 2 on a2 (pid 102) are stopped (state T)", [Where("a2", 1, 101), Where("a2", 2, 102)]),
    ("a rank without a number", {"a1": host(rank(0)), "a2": host(rank(None, "", STOPPED))},
     SuspectCode.STOPPED, "a rank on a2 (pid 100) is stopped (state T)", [Where("a2", None, 100)]),
    ("stuck in the driver", {"a1": host(rank(0, REDUCE)), "a2": host(rank(1, REDUCE, UNKILLABLE))},
     SuspectCode.UNKILLABLE, "rank 1 on a2 (pid 101) is stuck in the kernel (state D)", [Where("a2", 1, 101)]),
    ("no rank", {"a1": host(rank(0, REDUCE)), "a2": host()},
     SuspectCode.NO_RANK, "no rank runs on a2", [Where("a2")]),
    ("a silent host", {"a1": host(rank(0, REDUCE))},
     SuspectCode.SILENT_HOST, "the Ray service of a2 does not answer", [Where("a2")]),
    ("one that could not look", {"a1": host(rank(0, REDUCE)), "a2": COULD_NOT},
     SuspectCode.SILENT_HOST, "a2 could not look at its ranks in time", [Where("a2")]),
    ("the odd one", {"a1": host(rank(0, REDUCE), rank(1, REDUCE)), "a2": host(rank(2, REDUCE), rank(3, FORWARD))},
     SuspectCode.ODD, f"rank 3 on a2 (pid 103) is in {FORWARD}, all others are in {REDUCE}", [Where("a2", 3, 103)]),
    ("two that differ", {"a1": host(rank(0, REDUCE)), "a2": host(rank(1, FORWARD))}, SuspectCode.DIFFER,
     f"rank 0 on a1 (pid 100) is in {REDUCE}, rank 1 on a2 (pid 101) is in {FORWARD}",
     [Where("a1", 0, 100), Where("a2", 1, 101)]),
    ("no two in one place", {"a1": host(rank(0, REDUCE), rank(1, READ)), "a2": host(rank(2, FORWARD))}, SuspectCode.DIFFER,
     f"rank 0 on a1 (pid 100) is in {REDUCE}, rank 1 on a1 (pid 101) is in {READ}, rank 2 on a2 (pid 102) is in {FORWARD}",
     [Where("a1", 0, 100), Where("a1", 1, 101), Where("a2", 2, 102)]),
    ("all alike", {"a1": host(rank(0, REDUCE)), "a2": host(rank(1, REDUCE))}, SuspectCode.ALIKE,
     f"all 2 ranks run in {REDUCE}", [Where("a1", 0, 100), Where("a2", 1, 101)]),
    ("py-spy may not look", {"a1": host(rank(0)), "a2": host(rank(1, REDUCE))}, SuspectCode.UNSEEN,
     "all 2 ranks run; py-spy may not see where", []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "code", "reason", "where"), [case[1:] for case in TABLE], ids=[case[0] for case in TABLE]
)
def test_who_is_named(answers: dict[str, Answer], code: SuspectCode, reason: str, where: list[Where]) -> None:
    found = suspect.find(["a1", "a2"], answers, "a1", [OwnProcess("VLLM::EngineCore", 90, RankState.RUNS)])
    assert found is not None
    assert (found.code, found.reason, list(found.where)) == (code, reason, where)


def test_nobody_answered_and_nothing_is_known() -> None:
    assert suspect.find(["a1", "a2"], {}, "a1", [OwnProcess("VLLM::EngineCore", 90, RankState.RUNS)]) is None


@pytest.mark.parametrize("answers", [{}, {"a1": host(rank(0, READ)), "a2": host(rank(1, READ))}])
def test_the_engines_core_is_stopped(answers: dict[str, Answer]) -> None:
    found = suspect.find(["a1", "a2"], answers, "a1", [OwnProcess("VLLM::EngineCore", 90, STOPPED)])
    assert found is not None
    assert found.reason == "VLLM::EngineCore on a1 (pid 90) is stopped (state T)"
    assert found.where == (Where("a1", None, 90),)


def test_evidence_of_the_suspect_comes_first() -> None:
    found = suspect.find(["a1", "a2"], {"a1": host(rank(0)), "a2": host(rank(1, "", STOPPED))})
    assert str(found) == f"rank 1 on a2 (pid 101) is stopped (state T); stacks in a2:{FOLDER} and on 1 other host"


def test_many_are_named_in_short() -> None:
    ranks = [rank(number, "", STOPPED) for number in range(64)]
    found = suspect.find(["a1"], {"a1": host(*ranks)})
    assert found is not None
    assert found.reason.endswith("rank 3 on a1 (pid 103) and 60 more are stopped (state T)")
    assert len(found.where) == suspect.MOST


def test_it_survives_the_record_and_the_way_to_the_controller() -> None:
    found = suspect.find(["a1", "a2"], {"a1": host(rank(0)), "a2": host(rank(1, "", STOPPED))})
    written = json.loads(json.dumps(as_json(EngineState(Phase.SERVING, suspect=found))))
    assert EngineState.parse(written).suspect == found
    assert host_answer.part({"engine": written}, "engine") == written
