"""The failure that this project began with: graph capture hangs on driver 550.90.07, eager serves, 550.127.05 does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.lab import Lab, Play
from tests.e2e.test_site import HEAD, HOSTS, answers

pytestmark = pytest.mark.long  # about ten minutes: the driver is changed twice, and the ladder climbed twice

SUSPECT, GOOD = "550.90.07", "550.127.05"
RUNG_DEADLINE = 120  # seconds for vLLM to start on a rung above eager; healthy it takes about 50 on two quiet cores


def engine(lab: Lab) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(lab.on(HEAD, "cat /run/lockstep/engine.json"))
    return loaded


def rungs(lab: Lab) -> dict[str, str]:
    """Each rung with the code of its verdict, as the host keeps them."""
    record = lab.record(HEAD, "/var/lib/lockstep/engine/ladder.json")
    assert record
    (layout,) = record["layouts"].values()
    return {rung: trial["code"] for rung, trial in layout["rungs"].items()}


def roll(lab: Lab, version: str) -> Play:
    play = lab.play(extra={"nvidia_driver_version": version, "vllm_server_rung_deadline": RUNG_DEADLINE})
    assert play.rc == 0, play.explained()
    return play


@pytest.fixture(scope="module")
def sick(lab: Lab) -> Play:
    """The cluster on the suspect driver, on which vLLM's graph capture never ends."""
    for host in HOSTS:
        lab.testbed("fault", host, "engine_capture_hangs", "any", "--when-driver", SUSPECT)
    return roll(lab, SUSPECT)


def test_graphs_hang_in_bounded_time_and_eager_serves(lab: Lab, sick: Play) -> None:
    assert rungs(lab) == {"none": "ok", "full": "start_hangs", "piecewise": "start_hangs"}
    state = engine(lab)
    assert (state["phase"], state["rung"]) == ("serving", "none")
    assert answers(lab)
    assert state["evidence"], "a hang leaves no evidence"
    stacks = lab.on(HEAD, "cat " + " ".join(path for path in state["evidence"] if "stack" in path))
    assert "capture" in stacks
    for fragment in ("rung full does not hold, rung none serves", "graph-hang-550.90.07"):
        assert fragment in sick.text, f"the operator does not read {fragment!r}"


def test_the_verdict_names_driver_known_issue_and_remediation(lab: Lab, sick: Play) -> None:
    play = lab.play("playbooks/diagnose.yml", extra={"nvidia_driver_version": SUSPECT})
    assert play.rc == 0, play.explained()
    page = " ".join(
        line.strip()
        for event in play.events
        if event["event"] == "runner_on_ok" and event["event_data"].get("task") == "Show verdict"
        for line in event["event_data"]["res"]["msg"]
    )
    for fragment in (
        # Full graphs are tried first, piecewise ones where they fail.
        "VERDICT on replica_a: vLLM is good on rung none and fails above it: rung full: vLLM did not start within",
        "; rung piecewise: vLLM did not start within",
        f"driver {SUSPECT}",
        "graph-hang-550.90.07",
        "issues/17167",
        GOOD,
    ):
        assert fragment in " ".join(page.split()), page
    assert answers(lab), "diagnose disturbed what serves"


def test_a_failed_rung_is_not_tried_again_on_the_same_versions(lab: Lab, sick: Play) -> None:
    lab.on(HEAD, "systemctl restart lockstep-vllm")
    roll(lab, SUSPECT)
    assert rungs(lab) == {"none": "ok", "full": "start_hangs", "piecewise": "start_hangs"}
    assert engine(lab)["rung"] == "none"


def test_the_remediation_brings_graphs_back(lab: Lab, sick: Play) -> None:
    roll(lab, GOOD)
    assert rungs(lab) == {"none": "ok", "full": "ok"}
    assert engine(lab)["rung"] == "full"
    assert answers(lab)
