"""What the gates said on an H100 and an H200 (docs/evidence) is understood by the code of today, and says what the table there does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import events
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult
from tests.unit.module_utils.gates.codes_of_gates import OF_GATE

EVIDENCE = Path(__file__).parents[4] / "docs" / "evidence"
H100, H200 = EVIDENCE / "2026-11-26-h100-580.159.04", EVIDENCE / "2026-11-26-h200-580.159.04"


def gates(found: Any) -> Iterator[Mapping[str, Any]]:
    """Every gate's result in what a playbook kept."""
    if isinstance(found, dict):
        if "verdict" in found and "gate" in found:
            yield found
        for each in found.values():
            yield from gates(each)
    elif isinstance(found, list):
        for each in found:
            yield from gates(each)


def results(folder: Path) -> list[GateResult]:
    return [
        GateResult.from_dict(each)
        for path in sorted(folder.glob("*.json"))
        for each in gates(json.loads(path.read_text()))
    ]


@pytest.mark.parametrize("folder", [H100, H200], ids=["H100", "H200"])
def test_results_are_still_results(folder: Path) -> None:
    found = results(folder)
    assert all(result.code in OF_GATE[result.gate] for result in found)
    assert {str(result.code) for result in found} >= {
        "ok", "capture_hangs", "replay_hangs", "wrong_results", "rank_killed", "capture_errors", "replay_errors", "collective_hangs",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["events-nccl", "events-graph-no-compile"])
def test_steps_of_the_ranks_are_still_steps(name: str) -> None:
    lines = (H100 / f"{name}.jsonl").read_text()
    steps = [event for event in events.parse(lines) if isinstance(event, events.Step)]
    assert len(steps) == sum('"event": "step"' in line for line in lines.splitlines())
    assert [step.at for step in steps] == sorted(step.at for step in steps)


def test_dynamo_was_what_the_release_of_a_healthy_host_took() -> None:
    """9.4 of 15 s, to reset what had compiled nothing: ``captured.Compiler`` does not touch it now."""
    steps = [
        event
        for event in events.parse((H100 / "events-graph-no-compile.jsonl").read_text())
        if isinstance(event, events.Step) and not event.waiting
    ]
    began = {step.phase: step.at for step in reversed(steps)}
    assert 9 < began["end"] - began["release"] < 10
    assert began["release"] - began["eager"] < 3
