"""A wave's outcome is taken over its planned members: the missing count as failed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.filter import wave as filters
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import outcome
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.outcome import Begun, Failure
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.rollback_target import RollbackTarget
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import RollbackOutcome, Stage

ROLL_STAGES = (
    Stage.CHECK_PACKAGES,
    Stage.KEEP_SETTINGS,
    Stage.DRAIN_REPLICA,
    Stage.APPLY,
    Stage.HOST_GATES,
    Stage.STAMP_HOSTS,
    Stage.START_RAY,
    Stage.REPLICA_GATES,
    Stage.START_ENGINE,
    Stage.ENABLE_IN_ROUTER,
    Stage.BAKE,
    Stage.ACCEPT_DRIVER,
)
ROLLBACK_STAGES = (
    Stage.DRAIN_REPLICA,
    Stage.RESTORE_SETTINGS,
    Stage.RESTORE_DRIVER,
    Stage.HOST_GATES,
    Stage.STAMP_HOSTS,
    Stage.START_RAY,
    Stage.REPLICA_GATES,
    Stage.START_ENGINE,
    Stage.ENABLE_IN_ROUTER,
    Stage.ACCEPT_RESTORED,
)
SHARED = Path(__file__).parents[4] / "playbooks/shared"
FAILURE = Failure(Stage.APPLY, False, "Install driver", "no space left")
NOT_RESTORED = Failure(Stage.RESTORE_DRIVER, True, "Restore driver", "no such version")
NOT_ENABLED = Failure(Stage.ENABLE_IN_ROUTER, True, "Enable replica in HAProxy", "router1 is unreachable")


@pytest.mark.parametrize(
    ("waves", "sizes"),
    [([], [1]), ([1, 1], [2]), ([1, 1, 2, 2, 2, 3], [2, 3, 1]), ([0, 0], [2])],
)
def test_sizes(waves: list[int], sizes: list[int]) -> None:
    assert outcome.sizes(waves) == sizes


@pytest.mark.parametrize(
    ("batch", "kept", "rolling_back", "failed"),
    [
        (["a1", "a2"], {}, False, {}),
        (["a1", "a2"], {"a2": [FAILURE]}, False, {"a2": Stage.APPLY}),
        (["a1", "a2"], {"a2": [FAILURE]}, True, {}),
        (["a1", "a2"], {"a2": [FAILURE, NOT_RESTORED]}, True, {"a2": Stage.RESTORE_DRIVER}),
        (["a1", "a2"], {"a2": [FAILURE, NOT_RESTORED]}, False, {"a2": Stage.APPLY}),
        (["a1"], {}, False, {"a2": Stage.UNKNOWN}),
        ([], {}, True, {"a1": Stage.UNKNOWN, "a2": Stage.UNKNOWN}),
        (["a1"], {"a2": [FAILURE]}, False, {"a2": Stage.APPLY}),
    ],
)
def test_failures(batch: list[str], kept: dict, rolling_back: bool, failed: dict[str, Stage]) -> None:
    found = outcome.failures(["a1", "a2"], batch, kept, rolling_back, {})
    assert {host: failure.stage for host, failure in found.items()} == failed
    assert all(failure.rolling_back is rolling_back for failure in found.values())


@pytest.mark.parametrize(
    ("last", "of_the_wave", "of_the_rollback"),
    [
        pytest.param(
            None,
            "unreachable since before its first stage",
            "unreachable since before its first stage",
            id="before any stage",
        ),
        pytest.param(
            Begun(Stage.APPLY, rolling_back=False),
            "stage apply: it became unreachable",
            "unreachable since stage apply, so nothing was rolled back",
            id="in the wave",
        ),
        pytest.param(
            Begun(Stage.RESTORE_DRIVER, rolling_back=True),
            None,
            "stage restore_driver of the rollback: it became unreachable",
            id="in the rollback of a wave that another host failed",
        ),
    ],
)
def test_a_host_that_is_lost_is_listed_with_the_stage_that_it_was_in(
    last: Begun | None, of_the_wave: str | None, of_the_rollback: str
) -> None:
    begun = {} if last is None else {"a2": last}
    for rolling_back, text in ((False, of_the_wave), (True, of_the_rollback)):
        found = outcome.failures(["a1", "a2"], ["a1"], {}, rolling_back, begun)
        assert {host: str(failure) for host, failure in found.items()} == ({} if text is None else {"a2": text})
        assert all(failure.lost and failure.rolling_back is rolling_back for failure in found.values())


def test_a_host_keeps_the_stage_that_it_began() -> None:
    assert Begun.parse({"stage": "apply.yml", "rolling_back": False}) == Begun(Stage.APPLY, rolling_back=False)
    assert Begun.parse({"stage": "apply.yml", "rolling_back": True}).rolling_back is True


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        pytest.param(
            {"msg": "no wheel. uv: Using Python\nerror: No solution", "next": ""},
            ["  - a1, stage apply: no wheel. uv: Using Python", "    error: No solution"],
            id="lines of a tool",
        ),
        pytest.param(
            {"msg": "demo-agent is half-configured. Next: ansible a1 -a x", "next": "ansible a1 -a x"},
            ["  - a1, stage apply: demo-agent is half-configured.", "    to do: ansible a1 -a x"],
            id="a command of its own",
        ),
        pytest.param(
            {
                "msg": "no engine. Next: journalctl -u lockstep-vllm -n 200",
                "next": "journalctl -u lockstep-vllm -n 200",
            },
            ["  - a1, stage apply: no engine.", "    to do on a1: journalctl -u lockstep-vllm -n 200"],
            id="a command for the host",
        ),
        pytest.param(
            {"msg": "Two reasons", "reasons": "- one\n- two\nNext: ansible a1 -a x\n", "next": "ansible a1 -a x"},
            ["  - a1, stage apply: Two reasons", "    - one", "    - two", "    to do: ansible a1 -a x"],
            id="reasons",
        ),
    ],
)
def test_a_failure_of_several_lines_stands_below_its_host(result: dict[str, str], shown: list[str]) -> None:
    """One Next ends the message; a command that belongs to a failure is with that failure."""
    failed = {"a1": Failure.of_result(result, Stage.APPLY, False, "task")}
    cause = outcome.verdict(failed, {}, BACK, (1, 3), "replica_a", ("a1",), drivers=["550.127.05"]).cause
    assert cause.splitlines()[1 : 1 + len(shown)] == shown
    assert "Next:" not in cause


def test_a_failure_keeps_its_evidence_and_is_no_template() -> None:
    result = {"msg": "a {{ b }} {% c %}", "gate": {"evidence": ["/e/graph/stack.1"]}, "next": "ansible all {{ x }}"}
    first = filters.stage_failure(result, "apply.yml", False, "Install driver")
    then = filters.stage_failure({"evidence": "/e/x"}, "restore_driver.yml", True, "Restore driver")
    assert [first, then] == [
        {
            "stage": "apply",
            "rolling_back": False,
            "task": "Install driver",
            "msg": "a { { b }} { % c %}",
            "evidence": ["/e/graph/stack.1"],
            "next": "ansible all { { x }}",
            "lost": False,
        },
        {
            "stage": "restore_driver",
            "rolling_back": True,
            "task": "Restore driver",
            "msg": "it gave no message",
            "evidence": ["/e/x"],
            "next": "",
            "lost": False,
        },
    ]
    assert [as_json(Failure.parse(each)) for each in (first, then)] == [first, then]


@pytest.mark.parametrize(
    ("result", "msg", "paths"),
    [
        ({"msg": "x" * 8001, "evidence": [f"/e/{n}" for n in range(101)]}, "x" * 8000, 100),
        ({"msg": 10**5000, "evidence": 7}, "what it gave cannot be shown", 0),
        ({"msg": "", "module_stderr": "no Python", "gate": "no result"}, "no Python", 0),
        ({"msg": "x", "evidence": ("/e/1", "/e/2"), "gate": {"evidence": ["/e/3"]}}, "x", 2),
    ],
)
def test_a_failure_holds_what_people_can_read_whatever_its_host_gave(result: dict, msg: str, paths: int) -> None:
    failure = Failure.of_result(result, Stage.APPLY, False, "task")
    assert (failure.msg, len(failure.evidence)) == (msg, paths)


@pytest.mark.parametrize(
    ("stage", "itself", "mates", "runs"),
    [
        (Stage.DRAIN_REPLICA, False, ["a2"], True),
        (Stage.RESTORE_DRIVER, False, [], True),
        (Stage.RESTORE_SETTINGS, False, ["a2"], True),
        (Stage.RESTORE_SETTINGS, True, [], False),
        (Stage.RESTORE_DRIVER, False, ["a2"], True),
        (Stage.HOST_GATES, False, ["a2"], True),
        (Stage.RESTORE_DRIVER, True, [], False),
        (Stage.STAMP_HOSTS, False, ["a2"], False),
        (Stage.START_RAY, False, ["a2"], False),
        (Stage.START_RAY, False, [], True),
        (Stage.ACCEPT_RESTORED, False, ["a2"], False),
    ],
)
def test_nobody_waits_for_a_mate_that_could_not_be_rolled_back(
    stage: Stage, itself: bool, mates: list[str], runs: bool
) -> None:
    assert outcome.runs_rollback_stage(stage, itself, mates) == runs


def failed_at(stage: Stage, rolling_back: bool = False) -> Failure:
    return Failure(stage, rolling_back, "task", "msg")


@pytest.mark.parametrize(
    ("kept", "rolls_back", "stays"),
    [
        pytest.param([], True, False, id="its mate failed"),
        pytest.param([failed_at(Stage.APPLY)], True, False, id="rolled back"),
        pytest.param([failed_at(Stage.APPLY)], False, True, id="half changed and nothing to go back to"),
        pytest.param([failed_at(Stage.HOST_GATES)], False, True, id="host gate"),
        pytest.param([failed_at(Stage.STAMP_HOSTS)], False, True, id="network gate"),
        pytest.param([failed_at(Stage.REPLICA_GATES)], False, True, id="replica gate"),
        pytest.param([failed_at(Stage.DRAIN_REPLICA)], False, False, id="never changed"),
        pytest.param([failed_at(Stage.CHECK_PACKAGES)], False, False, id="serves on: its packages refuse the driver"),
        pytest.param([failed_at(Stage.KEEP_SETTINGS)], False, False, id="serves on: its settings could not be kept"),
        pytest.param([failed_at(Stage.BAKE)], False, False, id="its gates passed"),
        pytest.param([failed_at(Stage.APPLY), NOT_RESTORED], True, True, id="not rolled back"),
        pytest.param([NOT_RESTORED], True, True, id="its mate failed, and it was not rolled back"),
        pytest.param([failed_at(Stage.APPLY), NOT_ENABLED], True, False, id="serves, still drained in HAProxy"),
        pytest.param([failed_at(Stage.ENABLE_IN_ROUTER)], False, False, id="the wave's own router stage"),
    ],
)
def test_who_stays_in_quarantine(kept: list[Failure], rolls_back: bool, stays: bool) -> None:
    assert outcome.stays_in_quarantine(kept, rolls_back) == stays


def test_the_reason_of_a_quarantine_names_both_failures() -> None:
    assert outcome.reasons([FAILURE, NOT_RESTORED]) == (
        "stage apply: no space left; then stage restore_driver of the rollback: no such version"
    )
    assert outcome.reasons([]) == "its wave failed"


BACK = {"a1": RollbackTarget("550.90.07")}
TAKEN = {
    "a1": RollbackTarget(settings=True, restored="vLLM (args.max_num_seqs)"),
    "a2": RollbackTarget("550.90.07", True),
}
SITE = "The inventory still declares what failed: repair that first.\nNext: ansible-playbook site.yml --limit replica_a"


@pytest.mark.parametrize(
    ("left", "back", "became", "fragments"),
    [
        (
            {},
            BACK,
            RollbackOutcome.ROLLED_BACK,
            ["Rolled back", "serves: a1 on 550.90.07", "upgrade_driver.yml -e nvidia_driver_version=550.127.05"],
        ),
        (
            {"a2": NOT_RESTORED},
            BACK,
            RollbackOutcome.FAILED,
            ["could not be rolled back", "no such version", "diagnose.yml --limit replica_a"],
        ),
        (
            {"a1": NOT_ENABLED},
            BACK,
            RollbackOutcome.DRAINED_IN_ROUTER,
            [
                "still drained in HAProxy; next run enables it",
                "router1 is unreachable",
                "upgrade_driver.yml -e nvidia_driver_version=550.127.05",
            ],
        ),
        (
            {"a1": NOT_ENABLED, "a2": NOT_RESTORED},
            BACK,
            RollbackOutcome.FAILED,
            ["could not be rolled back", "router1", "diagnose.yml --limit replica_a"],
        ),
        (
            {},
            TAKEN,
            RollbackOutcome.ROLLED_BACK,
            ["serves: a2 on 550.90.07.", "  - a1, taken back: vLLM (args.max_num_seqs)", SITE],
        ),
        ({}, {"a1": TAKEN["a1"]}, RollbackOutcome.ROLLED_BACK, ["serves as before.", "a1, taken back: vLLM", SITE]),
        ({"a1": NOT_ENABLED}, TAKEN, RollbackOutcome.DRAINED_IN_ROUTER, ["still drained", SITE]),
        ({}, {}, RollbackOutcome.NOT_POSSIBLE, ["diagnose.yml --limit replica_a"]),
    ],
)
def test_the_closing_message(
    left: dict[str, Failure], back: dict[str, RollbackTarget], became: RollbackOutcome, fragments: list[str]
) -> None:
    kept = {"a1": [Failure(Stage.APPLY, False, "Install driver", "no space left", ("/e/r/graph/stack",))]}
    begun = {"a2": Begun(Stage.APPLY, rolling_back=False)}
    failed = outcome.failures(["a1", "a2"], ["a1"], kept, rolling_back=False, begun=begun)
    assert outcome.rollback_outcome(left, back) is became
    text = str(outcome.verdict(failed, left, back, (1, 3), "replica_a", ("a1", "a2"), "runs/r", ["550.127.05"]))
    for fragment in (
        "Wave 1 of 3",
        "a1, stage apply: no space left",
        "a1:/e/r/graph",
        "a2",
        "unreachable",
        "runs/r",
        *fragments,
    ):
        assert fragment in text
    assert text.splitlines()[-1].startswith("Next: ansible-playbook ")


@pytest.mark.parametrize(
    ("drivers", "begins"),
    [
        (["550.127.05", "550.127.05"], "Wave 1 of 3 failed on its way to driver 550.127.05; no further wave begins."),
        (
            ["590.48.01", "580.95.05"],
            "Wave 1 of 3 failed on its way to driver 580.95.05 and 590.48.01; no further wave",
        ),
        ([], "Wave 1 of 3 failed; no further wave begins."),
    ],
)
def test_the_closing_message_names_the_driver_that_failed(drivers: list[str], begins: str) -> None:
    text = str(outcome.verdict({"a1": FAILURE}, {}, BACK, (1, 3), "replica_a", ("a1", "a2"), drivers=drivers))
    assert text.startswith(begins)


def lost_in(stage: Stage | None, *hosts: str) -> tuple[outcome.Failures, outcome.Failures]:
    """What the wave and its rollback have of hosts that were lost in ``stage``."""
    begun = {} if stage is None else dict.fromkeys(hosts, Begun(stage, rolling_back=False))
    failed, left = (outcome.failures(hosts, [], {}, rolling_back, begun) for rolling_back in (False, True))
    return failed, left


def test_the_closing_message_of_a_wave_of_which_nobody_can_be_reached() -> None:
    failed, left = lost_in(Stage.APPLY, "a1", "a2")
    stop = outcome.verdict(failed, left, {}, (1, 3), "replica_a", ("a1", "a2"))
    assert stop.cause.splitlines() == [
        "Wave 1 of 3 failed; no further wave begins.",
        "  - a1, stage apply: it became unreachable",
        "  - a2, stage apply: it became unreachable",
        "None of its hosts can be reached, so it could not be rolled back. What was being changed is in quarantine: it stays "
        "out of Ray.",
        "Once they answer, run the same command again: it finishes them first.",
    ]
    assert stop.next == "ansible a1,a2 -m ansible.builtin.ping"
    one = {"a1": failed["a1"]}, {"a1": left["a1"]}
    for members, none in ((("a1",), True), (("a1", "a2"), False)):
        cause = outcome.verdict(*one, {}, (1, 3), "replica_a", members).cause
        assert ("None of its hosts" in cause) is none, "what the others are is known"
    rolled_back = outcome.verdict(failed, {}, BACK, (1, 3), "replica_a", ("a1", "a2"))
    assert "None of its hosts" not in rolled_back.cause


def test_the_closing_message_says_of_one_that_was_lost_that_it_was_not_rolled_back() -> None:
    failed, left = lost_in(Stage.APPLY, "a2")
    lines = outcome.verdict({"a1": FAILURE, **failed}, left, BACK, (1, 3), "replica_a", ("a1", "a2")).cause.splitlines()
    assert lines[1:3] == ["  - a1, stage apply: no space left", "  - a2, stage apply: it became unreachable"]
    assert "  - a2, unreachable since stage apply, so nothing was rolled back" in lines


@pytest.mark.parametrize("stage", [None, Stage.CHECK_PACKAGES, Stage.KEEP_SETTINGS])
def test_a_wave_that_was_lost_before_its_drain_was_left_as_it_was(stage: Stage | None) -> None:
    failed, left = lost_in(stage, "a2")
    cause = outcome.verdict(failed, left, {}, (2, 3), "replica_a", ("a1", "a2")).cause
    assert "Nothing of this wave was drained or changed." in cause
    assert "could not be rolled back" not in cause


def test_a_wave_that_is_refused_before_its_drain_ends_with_the_command() -> None:
    commands = {
        "a1": "ansible a1 -b -m command -a 'dpkg --configure -a'",
        "a2": "ansible a2 -b -m command -a 'apt -f install'",
    }
    failed = {
        host: Failure(Stage.CHECK_PACKAGES, False, "Check packages", "broken", next=command)
        for host, command in commands.items()
    }
    stop = outcome.verdict(failed, {}, {}, (2, 3), "replica_a", ("a1", "a2"), drivers=["550.127.05"])
    assert stop.cause.splitlines() == [
        "Wave 2 of 3 failed on its way to driver 550.127.05; no further wave begins.",
        "  - a1, stage check_packages: broken",
        "  - a2, stage check_packages: broken",
        f"    to do: {commands['a2']}",
        "Nothing of this wave was drained or changed.",
        "Then run the same command again: it goes on with this wave.",
    ]
    assert stop.next == commands["a1"]


def test_the_controller_takes_part_in_no_stage() -> None:
    for rolling_back in (False, True):
        assert not filters.wave_runs_stage(
            hostvars(), "drain_replica.yml", rolling_back, "lockstep_wave_1", ["a1"], ["a1", "lockstep_wave_1"]
        )


def hostvars(**kept: list[Failure]) -> dict[str, dict]:
    replicas = {"a1": "replica_a", "a2": "replica_a", "b1": "replica_b"}
    return {
        host: {"lockstep_replica": name, "lockstep_failures": [as_json(failure) for failure in kept.get(host, [])]}
        for host, name in replicas.items()
    }


@pytest.mark.parametrize(
    ("stage", "rolling_back", "host", "kept", "batch", "runs"),
    [
        ("apply.yml", False, "a1", {}, ["a1", "a2", "b1"], True),
        ("apply.yml", False, "a1", {"b1": [FAILURE]}, ["a1", "a2", "b1"], False),
        ("apply.yml", False, "a1", {}, ["a1", "a2"], False),
        ("start_ray.yml", True, "a1", {"a1": [FAILURE]}, ["a1", "a2", "b1"], True),
        ("start_ray.yml", True, "a1", {"b1": [FAILURE, NOT_RESTORED]}, ["a1", "a2", "b1"], True),
        ("start_ray.yml", True, "a1", {"a2": [NOT_RESTORED]}, ["a1", "a2", "b1"], False),
        ("start_ray.yml", True, "a1", {}, ["a1", "b1"], False),
        ("restore_driver.yml", True, "a1", {}, ["a1", "b1"], True),
        ("restore_driver.yml", True, "a1", {"a1": [FAILURE, NOT_RESTORED]}, ["a1", "a2", "b1"], False),
    ],
)
def test_who_runs_a_stage(
    stage: str, rolling_back: bool, host: str, kept: dict[str, list[Failure]], batch: list[str], runs: bool
) -> None:
    members = ["a1", "a2", "b1"]
    assert filters.wave_runs_stage(hostvars(**kept), stage, rolling_back, host, members, batch) == runs


@pytest.mark.parametrize(("playbook", "stages"), [("rollout.yml", ROLL_STAGES), ("wave/rollback.yml", ROLLBACK_STAGES)])
def test_the_playbook_runs_the_stages_that_are_documented(playbook: str, stages: tuple[Stage, ...]) -> None:
    lists = [
        task["loop"]
        for play in yaml.safe_load((SHARED / playbook).read_text())
        for task in play.get("tasks", [play])
        if "include_tasks" in str(list(task)) and "loop" in task
    ]
    assert lists == [[f"{stage}.yml" for stage in stages]]
    for stage in stages:
        assert (SHARED / f"wave/{stage}.yml").is_file()
