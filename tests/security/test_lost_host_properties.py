"""Whatever a host answers: its parsers raise nothing but their own error, and a run always has a report, never a false one.

Every parser is tried on some hundreds of answers here, and on a hundred thousand in the long suite (``pytest -m long``).
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
import types
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.lockstep.vllm.plugins.action import fetch_evidence, rollout_lock
from ansible_collections.lockstep.vllm.plugins.callback import calm
from ansible_collections.lockstep.vllm.plugins.callback import rollout as callback
from ansible_collections.lockstep.vllm.plugins.filter import diagnosis, wave
from ansible_collections.lockstep.vllm.plugins.module_utils.core import typed, wording
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult
from ansible_collections.lockstep.vllm.plugins.module_utils.host import answer as host_answer
from ansible_collections.lockstep.vllm.plugins.module_utils.host import metrics
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import assessment, gcs, peer_status
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.shape import Shape
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import lock as lock_records
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import Observed
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import driver_preflight, fleet, upload
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import let_in
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import (
    cluster_status,
    feed,
    gate_matrix,
    journal,
    page,
    progress,
    status_table,
)
from tests.security import hostile, mutations
from tests.unit.module_utils.host import host_states
from tests.unit.module_utils.rollout import test_plan as plans
from tests.unit.plugin_utils.controller import test_driver_preflight as package_answers
from tests.unit.plugin_utils.report import rolls
from tests.unit.plugin_utils.report import test_status_table as statuses

Property = Callable[[], tuple[Sequence[Any], mutations.Check]]
"""Good answers of one kind, and what is to hold for whatever else comes in their place: it raises nothing."""
SHORT, LONG = 200, int(os.environ.get("LOCKSTEP_FUZZ_CASES", "100000"))
SEED = int(os.environ.get("LOCKSTEP_FUZZ_SEED", "0"))
SHORT_RUNS = 60
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where folders are made by the thousand."""


@pytest.fixture(autouse=True)
def folder_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback tells it to its process's children: here, to every later test of this worker."""
    monkeypatch.setenv(journal.ROOT_VARIABLE, "")
    monkeypatch.delenv(journal.ROOT_VARIABLE)


def holds(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], cases: int) -> None:
    """``check`` raises nothing for so many values; the same ones every time."""
    limits = settings(
        max_examples=cases, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    limits(given(strategy)(check))()


def printable(value: Any) -> bool:
    return wording.printable(str(value)) == str(value)


def text_of(value: Any) -> str:
    """As a host's Python prints it, NaN and all; surrogates as escapes."""
    return json.dumps(value)


def json_texts() -> tuple[Sequence[Any], mutations.Check]:
    """typed.loads, and a program's output as a whole."""

    def check(text: str) -> None:
        out = b"banner\x1e" + text.encode("utf-8", "surrogatepass")
        answer = fleet.read(0, out, out)
        assert (answer.error is None) == (answer.code is None)
        assert printable(answer.error)
        if answer.error is None:
            assert json.loads(json.dumps(answer.value)) == answer.value
            assert printable(json.dumps(answer.value, ensure_ascii=False))
        fleet.read(1, out, out)

    return (host_states.HEAD, *hostile.TEXTS), lambda value: check(value if isinstance(value, str) else text_of(value))


def probes() -> tuple[Sequence[Any], mutations.Check]:
    """A probe's answer: the door, then all that a plan, a status and the metrics make of it."""

    def check(value: Any) -> None:
        let = let_in(Answer(value=value))
        observed = {"a1": Observed.parse(let.value, let.error, let.reachable)}
        plans.build(states=observed)
        found = statuses.probe()
        found["hosts"]["a1"] = {"reachable": let.reachable, "error": let.error, "state": let.value}
        status = cluster_status.build(found)  # type: ignore[arg-type]
        assert "a2" in status_table.as_text(status)
        status_table.as_json(status)
        if let.value is not None:
            metrics.render(metrics.samples(let.value))

    return (plans.good("a1"), statuses.state(head=True), host_states.HEAD), check


def peers() -> tuple[Sequence[Any], mutations.Check]:
    """What a peer tells the head."""
    good = json.loads(
        json.dumps({"host": "a2", "answered": True, "quarantine": {"kind": "failed", "reason": "x", "owner": "y"},
                    "unit": {"active": "failed", "result": "x", "present": True},
                    "refusal": "", "driver": "550", "ray": {"code": "token_refused", "reason": "x", "at": ""}})
    )  # fmt: skip
    shape = Shape(members={"a1": "x", "a2": "y"}, hosts=2, gpus_per_host=1, head="x", head_host="a1")

    def check(value: Any) -> None:
        status = peer_status.parse("a2", text_of(value))
        assert status.host == "a2"
        for head in ("up", "down"):
            seen = assessment.Observation(gcs.Table(head), {"a1": status, "a2": status})
            assert printable(assessment.assess(shape, seen))

    return (good,), check


def lock_answers() -> tuple[Sequence[Any], mutations.Check]:
    """What heads answer when they are asked for the lock."""
    here = {"controller": "c", "machine": "m", "boot": "b", "namespace": "n"}
    lock = {
        "run": "r1",
        "holder": "x",
        "pid": 7,
        "since": "2026-11-22T01:00:00Z",
        "heartbeat": "x",
        **here,
        "started": 1,
    }
    good = {
        "action": "refuse",
        "lock": lock,
        "request": {"action": "pause", "reason": "x"},
        "unready": "",
        "ended": ["r0"],
    }

    def check(value: Any) -> None:
        answers = {"a1": Answer(value=value).checked(lock_records.Claimed, typed.PARTIAL)}
        rollout_lock._problem(answers, here, {"run": "r2", "take_over": ["r1"]})
        assert "a1" in {
            **rollout_lock._result(answers, False)["silent"],
            **rollout_lock._result(answers, False)["locks"],
        }
        for answer in answers.values():
            if answer.value:
                rollout_lock.identity.known_dead(answer.value.lock, here)
                rollout_lock.identity.known_alive(answer.value.lock, here)

    return (good,), check


def evidence() -> tuple[Sequence[Any], mutations.Check]:
    """What a host sends as its evidence."""
    packed = base64.b64encode(zlib.compress(b"stacks")).decode()
    good = {"files": {"/e/stacks.txt": packed, "/e/x.html": packed}, "left_out": []}

    def check(value: Any) -> None:
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
            root = Path(folder) / "evidence" / "a1"
            kept = fetch_evidence.keep(root, "a1", Answer(value=value))
            assert all(path.suffix == ".txt" and path.resolve().is_relative_to(root.resolve()) for path in kept.files)
            assert printable(kept.warnings)

    return (good,), check


def filters() -> tuple[Sequence[Any], mutations.Check]:
    """What the filters of a wave and of a diagnosis make of registered results."""
    gate = as_json(GateResult("nccl", "fail", 1.0, cause="x", next="y"))
    change = {"change": {"from": {"version": "1"}, "to": {"version": "2"}}}
    state = {**host_states.HEAD, "change": change}
    good = {"failed": True, "msg": "x", "gate": gate, "evidence": ["/e"], "state": state}

    def check(value: Any) -> None:
        result = value if isinstance(value, dict) else {}
        kept = wave.stage_failure(result, "host_gates.yml", False, "x")
        seen = {"lockstep_rollback_probe": result, "lockstep_failures": [kept], "lockstep_wave": 1, "lockstep_waves_total": 1,
                "lockstep_replica": "replica_a", "lockstep_steps": ["driver"], "lockstep_driver": {"version": "2"},
                "lockstep_seen_state": result, "lockstep_seen_ranks": result,
                "lockstep_seen_driver": result, "lockstep_seen_ranks_replica": result}  # fmt: skip
        other = {**seen, "lockstep_rollback_probe": {"state": state}}
        hostvars = {"a1": seen, "a2": other}
        assert wave.wave_rolls_back(hostvars, ["a1", "a2"], ["a1", "a2"])
        assert wave.wave_verdict(hostvars, ["a1", "a2"], ["a1", "a2"], "a1")["next"].startswith("ansible-playbook ")
        diagnosis.lockstep_engine_runs(hostvars, "a1")
        assert printable(diagnosis.lockstep_diagnosis(hostvars, "a1"))

    return (good,), check


GATE = as_json(GateResult("nccl", "fail", 1.0, host="a2", pair=("a1", "a2"), measured={"x": 1.5}, cause="c", next="n"))
RESULT = {
    "failed": True,
    "msg": "it broke",
    "stderr": "why",
    "gate": GATE,
    "evidence": ["/e"],
    "fingerprint": {"driver": "1"},
    "completion": {"ok": True, "text": "so", "seconds": 0.4},
    "warnings": ["w"],
    "lockstep_event": [{"event": "note", "text": "x"}, {"event": "run_ended", "outcome": "done"}],
    "lockstep_plan": {"run": "r9", "waves": [], "refusals": ["x"]},
    "results": [{"failed": True, "msg": "x", "gate": GATE}],
}


class Run:
    """A run as Ansible tells the callback of it, with tasks and results made of what is needed of them."""

    def __init__(self, root: Path) -> None:
        self.plugin = callback.CallbackModule()
        self.shown: list[str] = []
        self.warned: list[str] = []
        self.plugin.get_option = {"path": str(root), "live": True, "answer_limit": 4}.get
        self.plugin._display = types.SimpleNamespace(
            display=lambda text, color=None: self.shown.append(text), warning=self.warned.append
        )
        self.plugin.v2_playbook_on_start(types.SimpleNamespace(_file_name="upgrade_driver.yml"))

    def task(self, host: str, result: Any, failed: bool, action: str = "lockstep.vllm.nccl_verify") -> None:
        task = types.SimpleNamespace(
            action=action,
            resolved_action=action,
            get_name=lambda: "Run gate",
            get_vars=lambda: {"lockstep_step": "gates"},
        )
        machine = types.SimpleNamespace(get_name=lambda: host)
        ended = types.SimpleNamespace(task=task, host=machine, result=result, is_changed=lambda: False)
        self.plugin.v2_runner_on_start(machine, task)
        (self.plugin.v2_runner_on_failed if failed else self.plugin.v2_runner_on_ok)(ended)

    def end(self, failed: bool) -> None:
        counts = {"failures": int(failed), "unreachable": 0}
        self.plugin.v2_playbook_on_stats(types.SimpleNamespace(processed={"a1": 1}, summarize=lambda _host: counts))


def runs(results: list[mutations.Result]) -> None:
    """Any results, by any hosts, in any order: no fault of the callback, a report, and "done" only where nothing failed."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        run = Run(Path(folder))
        run.task("a1", {"lockstep_plan": rolls.plan(["replica_a", "replica_b"])}, False, "lockstep.vllm.plan")
        for host, result, failed in results:
            run.task(host, result if isinstance(result, dict) else {"msg": result}, failed)
        failed = any(each[2] for each in results)
        run.end(failed)
        assert run.warned == []
        (report,) = Path(folder).glob(f"*/{journal.REPORT}")
        shown, said = report.read_text(encoding="utf-8"), journal.read(report.with_name(journal.NAME))
        assert said[-1]["event"] == "run_ended"
        gates_failed = gate_matrix.matrix(run.plugin._tracker.gates).failing  # by the last verdict of each
        assert said[-1]["outcome"] == ("failed" if failed else "gates_failed" if gates_failed else "done")
        assert [each["outcome"] for each in said if each["event"] == "run_ended"] == [said[-1]["outcome"]]
        assert sum(each["event"] == "failed" for each in said) == sum(each[2] for each in results)
        assert f"<h1>{'Upgrade driver'}</h1>" in shown
        headline = shown.split('aria-hidden="true"></span>')[1].split("</p>")[0]
        assert (
            headline.startswith("Stopped in wave ")
            if failed
            else headline.startswith("Done, ") or " failed" in headline
        )
        assert all(printable(line) and "\n" not in line for line in run.shown)
        assert wording.printable(shown) == shown
        assert page.render(said)


class Terminal(Run):
    """The same run with the callback ``calm`` before ``rollout``, on a terminal that redraws."""

    def __init__(self, root: Path) -> None:
        self.calm = calm.CallbackModule()
        self.drawn: list[str] = []
        self.calm._display = types.SimpleNamespace(display=self.display, warning=self.display, verbosity=0)
        self.calm._screen = types.SimpleNamespace(redrawn=True, size=lambda: (80, 10), draw=self.drawn.extend)
        feed.listener = calm._Locked(self.calm._view, self.calm.lock)
        super().__init__(root)
        self.shown.clear()

    def display(self, text: str, color: str | None = None, **_options: Any) -> None:
        self.shown.append(text)

    def task(self, host: str, result: Any, failed: bool, action: str = "lockstep.vllm.nccl_verify") -> None:
        self.calm._view.task_starts(host, "Run gate")
        task = types.SimpleNamespace(
            action=action,
            resolved_action=action,
            get_name=lambda: "Run gate",
            get_path=lambda: f"{calm._OURS[0]}/x.yml:3",
        )
        machine = types.SimpleNamespace(get_name=lambda: host)
        ended = types.SimpleNamespace(task=task, host=machine, result=dict(result), is_changed=lambda: False)
        (self.calm.v2_runner_on_failed if failed else self.calm.v2_runner_on_ok)(ended)
        self.calm._draw()
        super().task(host, result, failed, action)
        self.calm._draw()


def screens(results: list[mutations.Result]) -> None:
    """The calm screen shows every failure, has no fault, and nothing of a result moves the cursor."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        try:
            run = Terminal(Path(folder))
            run.task("a1", {"lockstep_plan": rolls.plan(["replica_a", "replica_b"])}, False, "lockstep.vllm.plan")
            for host, result, failed in results:
                run.calm._view.reported(progress.Progress(host, 15.0, "a2: away"))
                run.task(host, result if isinstance(result, dict) else {"msg": result}, failed)
            run.end(any(each[2] for each in results))
        finally:
            feed.listener = None
        assert run.calm.calm, run.shown
        assert run.warned == []
        text = [line for line in run.shown if line]
        for host in {host for host, _result, failed in results if failed}:
            assert any(host in line and "FAILED" in line for line in text), text
        assert all(printable(line) and "\n" not in line for line in [*text, *run.drawn])
        assert all(len(line) < 80 for line in run.drawn)
        (head,) = [line for line in text if line.startswith("┌")]
        failed = any(each[2] for each in results)
        unfit = bool(gate_matrix.matrix(run.plugin._tracker.gates).failing)
        assert ("gates FAILED" in head, "FAILED" in head) == (unfit and not failed, unfit or failed)


def driver_packages() -> tuple[Sequence[Any], mutations.Check]:
    """What hosts whose driver is due say of their packages; one of them is as it should be."""
    well = {"locks": {}, "problems": [package_answers.BROKEN, package_answers.REPAIRED]}
    busy = {"locks": package_answers.APT, "problems": []}

    def check(value: Any) -> None:
        clock = iter(range(10**6))
        answers = {"a1": Answer(value=value), "a2": Answer(value=well)}
        with mock.patch.object(driver_preflight.progress, "tell"):
            found = driver_preflight.find(
                {host: {} for host in answers},
                lambda some: {host: answers[host] for host in some},
                2.0,
                clock=lambda: float(next(clock)),
                sleep=lambda _seconds: None,
            )
        assert any(str(refusal).startswith("a2: package demo is half-configured") for refusal in found.refusals)
        assert printable([*map(str, found.refusals), *map(str, found.warnings)])

    return (well, busy), check


def uploads() -> tuple[Sequence[Any], mutations.Check]:
    """Which files of the controller's a host asks for, while a model is staged on it."""
    good = {"code": "upload", "reason": "x", "files": {"model.safetensors": "7", "sub/x.json": "0"}}
    sizes = {"model.safetensors": 9, "sub/x.json": 2}

    def check(value: Any) -> None:
        asked, refused = {}, ""
        try:
            asked = upload.missing(sizes, value.get("files") if isinstance(value, dict) else value)
        except upload.UploadError as error:
            refused = str(error)
        assert printable(refused)
        assert all(0 <= there <= sizes[path] for path, there in asked.items())

    return (good,), check


PARSERS: list[Property] = [json_texts, probes, peers, lock_answers, evidence, filters, driver_packages, uploads]
RUNS = [runs, screens]


@pytest.mark.parametrize("family", PARSERS)
def test_some_answers(family: Property) -> None:
    goods, check = family()
    holds(st.sampled_from(goods).flatmap(hostile.answers), check, SHORT)
    mutations.hold(check, goods, SHORT)


@pytest.mark.parametrize("check", RUNS)
def test_some_runs(check: Callable[[list[mutations.Result]], None]) -> None:
    one = st.tuples(st.sampled_from(("a1", "a2", "b1")), hostile.answers(RESULT), st.booleans())
    holds(st.lists(one, min_size=1, max_size=5), check, SHORT_RUNS)
    mutations.hold_runs(check, RESULT, SHORT)


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("family", PARSERS)
def test_a_hundred_thousand_answers(family: Property) -> None:
    goods, check = family()
    print(family.__name__, mutations.hold(check, goods, LONG, SEED))


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("check", RUNS)
def test_a_hundred_thousand_results_of_runs(check: Callable[[list[mutations.Result]], None]) -> None:
    print(check.__name__, mutations.hold_runs(check, RESULT, LONG, SEED))


def test_the_values_are_hostile() -> None:
    """Values that harm nobody would let all of the above pass."""
    refused: set[str] = set()

    def check(value: Any) -> None:
        try:
            host_answer.read(typed.loads(text_of(value)))
        except typed.BadAnswer as error:
            refused.add(error.problem.split(" of ")[0].split(":")[0])

    holds(hostile.answers(host_states.HEAD), check, 1000)
    for problem in ("is nested deeper", "holds a number", "is a list, expected an object"):
        assert any(found.startswith(problem) for found in refused), refused
