"""playbooks/shared in real runs: stages in order, rollback, lock, policy. Roles, lock, probe and plan are stand-ins.

Each stand-in writes down who did what, and fails, or loses its host, where the test demands it; the playbooks, the filters and Ansible are real.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import run_plan
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Step
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.waves import Wave

ROOT = Path(__file__).parents[3]
HOSTS = {"a1": "replica_a", "a2": "replica_a", "b1": "replica_b", "b2": "replica_b"}
OLD = {"version": "550.90.07", "source": "mirror", "flavor": "open"}

STAND_IN = """
import pathlib
import time
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        args, name = dict(self._task.args), self._task.action.rpartition(".")[2]
        back = "rollback:" if task_vars.get("lockstep_rolling_back") else ""
        if name == "plan":
            name = f"plan {sorted(args['policy'].items())}"
        what = args.get("verb") or " ".join(filter(None, (name, args.get("state") or args.get("action"))))
        if back and what == "vllm_server.start" and "vllm_server_serving_deadline" in task_vars:
            what += f" (deadline {task_vars['vllm_server_serving_deadline']})"
        with (pathlib.Path(task_vars["log"])).open("a") as log:
            log.write(f"{task_vars['inventory_hostname']} {back}{what}\\n")
        if back + what in task_vars.get("lost", {}).get(task_vars["inventory_hostname"], []):
            raise AnsibleConnectionFailure("no route to host")
        if back + what in task_vars.get("fails", {}).get(task_vars["inventory_hostname"], []):
            command = f"ansible {task_vars['inventory_hostname']} -b -m ansible.builtin.command -a repair"
            return {"failed": True, "msg": f"{what} failed {{{{ here }}}}", **({"next": command} if what.endswith("check") else {})}
        if back + what in task_vars.get("hangs", {}).get(task_vars["inventory_hostname"], []):
            time.sleep(3600)
        return {"changed": False, **task_vars.get("answers", {}).get(name.partition(" ")[0], {})}
"""
STAND_INS = (
    "stand_in",
    "rollout_lock",
    "rollout_request",
    "fetch_evidence",
    "host_probe",
    "nvidia_driver_change",
    "previous_settings",
    "plan",
)
VERBS = {
    "gpu_host": ["configure", "remove"],
    "nvidia_driver": ["prefetch", "check", "install", "load", "restore", "accept", "release"],
    "serving_runtime": ["install"],
    "ray_node": ["configure", "start", "stop"],
    "model": ["stage", "warm"],
    "vllm_server": ["configure", "baseline", "drain", "stop", "start", "prove", "bake"],
    "admission": ["quarantine", "verify_host", "stamp_host", "verify_replica", "admit"],
}


@dataclasses.dataclass
class Ran:
    rc: int
    text: str
    log: list[str]

    def of(self, host: str) -> list[str]:
        return [line.split(" ", 1)[1] for line in self.log if line.startswith(f"{host} ")]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection with stand-ins for what touches a host."""
    root = tmp_path_factory.mktemp("collections")
    folder = root / "ansible_collections/lockstep/vllm"
    folder.mkdir(parents=True)
    for name in ("plugins", "playbooks", "meta"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "galaxy.yml", folder / "galaxy.yml")
    for name in STAND_INS:
        (folder / f"plugins/action/{name}.py").write_text(STAND_IN)
    (folder / "plugins/modules/stand_in.py").write_text("")
    for role, verbs in VERBS.items():
        (folder / f"roles/{role}/tasks").mkdir(parents=True)
        for verb in verbs:
            task = {"name": f"Do {verb}", "lockstep.vllm.stand_in": {"verb": f"{role}.{verb}"}}
            (folder / f"roles/{role}/tasks/{verb}.yml").write_text(yaml.safe_dump([task]))
    return root


def rollout(
    collection: Path,
    folder: Path,
    fails: dict[str, list[str]] | None = None,
    request: dict[str, Any] | None = None,
    change: dict[str, Any] | None = None,
    mode: str = "upgrade",
    lost: dict[str, list[str]] | None = None,
    left_out: Mapping[str, str] | None = None,
    steps: Sequence[str] = ("driver",),
    previous: dict[str, Any] | None = None,
    bake: int = 0,
    hangs: dict[str, list[str]] | None = None,
    options: Sequence[str] = (),
    model_source: str = "",
) -> Ran:
    """Two waves of one replica of two hosts, each of which gets another driver, or what ``steps`` name.

    ``lost`` are hosts that cannot be reached from one task on; ``left_out`` is the message that the run is to end with, for c1.
    """
    log = folder / "log"
    log.write_text("")
    heads = {host for host in HOSTS if host.endswith("1")}
    answers = {
        "rollout_lock": {"request": request, "unready": dict.fromkeys(sorted(heads), "")},
        "host_probe": {
            "state": {"change": {"change": change}, "previous": previous, "driver": {"loaded_version": "550.127.05"}}
        },
        "previous_settings": {"restored": "vLLM (args.max_num_seqs)" if previous else "", "serving_deadline": 77.0},
        "fetch_evidence": {"folder": "runs/r"},
    }
    hosts = {
        host: {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ray_node_role": "head" if host in heads else "worker",
            "log": str(log),
            "fails": fails or {},
            "lost": lost or {},
            "hangs": hangs or {},
            "answers": answers,
            "model_source": model_source,
        }
        for host in HOSTS
    }
    (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": {"log": str(log)}}}))
    driver = {**OLD, "version": "550.127.05"}
    rows = []
    for number, replica in enumerate(("replica_a", "replica_b"), 1):
        members = tuple(host for host, name in HOSTS.items() if name == replica)
        groups = ("lockstep_prefetch", "lockstep_waves", "lockstep_completed")
        rows += [run_plan.Member(host, groups, number, members, tuple(map(Step, steps)), driver, replica, True, True)
                 for host in members]  # fmt: skip
        wave = Wave(number, (replica,), members, {}, None, False, (), (), {})
        rows.append(run_plan.watch(wave, ("lockstep_prefetch", "lockstep_completed")))
    if left_out:
        rows.append(run_plan.Member("c1", ("lockstep_left_out",), 0, (), (), {}, "replica_c", False, False))
    grouped = yaml.safe_load((ROOT / "playbooks/shared/plan.yml").read_text())[0]
    (group,) = [task for task in grouped["tasks"] if task["name"] == "Group hosts by what they need"]
    planned = {"members": as_json(rows), "run": "r", "mode": mode, "began": 0, "waves": [1, 2], "floor": 1, "window": "",
               "pause_between": 0, "bake": {"seconds": bake, "latency_factor": 2, "error_share": 0, "requests": 0}, "left_out": dict(left_out or {})}  # fmt: skip
    plan = {
        "name": "Group",
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [group],
        "vars": {"lockstep_plan": planned},
    }
    shared = collection / "ansible_collections/lockstep/vllm/playbooks/shared/rollout.yml"
    (folder / "play.yml").write_text(
        yaml.safe_dump([plan, {"name": "Roll", "ansible.builtin.import_playbook": str(shared)}])
    )
    return run(collection, folder, log, *options)


def run(collection: Path, folder: Path, log: Path, *options: str) -> Ran:
    (folder / "ansible.cfg").write_text(
        f"[defaults]\ncollections_path = {collection}\nlocal_tmp = {folder}/tmp\ncallback_result_format = yaml\n"
    )
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "inventory.yml", "play.yml", *options],
        cwd=folder,
        env={**os.environ, "ANSIBLE_CONFIG": str(folder / "ansible.cfg")},
        capture_output=True,
        text=True,
    )
    return Ran(done.returncode, done.stdout + done.stderr, log.read_text().splitlines())


HEAD = [
    "model.warm",
    "vllm_server.drain",
    "vllm_server.stop",
    "admission.quarantine",
    "ray_node.stop",
    "nvidia_driver.install",
    "nvidia_driver.load",
    "admission.verify_host",
    "admission.stamp_host",
    "ray_node.start",
    "admission.verify_replica",
    "vllm_server.start",
    "vllm_server.prove",
    "admission.admit",
    "nvidia_driver.accept",
    "previous_settings accepted",
]


def pasted(folder: Path, command: str) -> str:
    """``command``, of Ansible, as a run that :func:`run` started repeats it."""
    program, arguments = command.split(" ", 1)
    return f"cd {folder} && {program} -i inventory.yml {arguments}"


def without_lock(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("rollout_lock")]


def test_waves_go_through_their_stages_in_order(collection: Path, tmp_path: Path) -> None:
    ran = rollout(collection, tmp_path)
    assert ran.rc == 0, ran.text
    for host in ("a1", "b1"):
        stages = [line for line in without_lock(ran.of(host)) if not line.startswith("nvidia_driver_change")]
        again = ["nvidia_driver.check"] if host == "b1" else []  # the first wave was asked by prefetch
        assert stages == ["nvidia_driver.prefetch", *again, *HEAD], ran.text
    heads_only = ("vllm_server.drain", "vllm_server.stop", "vllm_server.start", "vllm_server.prove")
    assert [line for line in HEAD if line not in heads_only] == [line for line in ran.of("b2") if line in HEAD]
    assert ran.log.index("b1 vllm_server.drain") > ran.log.index("a1 nvidia_driver.accept")
    assert ran.log[-1] == "a1 rollout_lock released"


@pytest.mark.parametrize("mode", ["converge", "upgrade_model", "upgrade", "verify"])
def test_a_model_with_a_source_is_staged_before_anything_is_drained(
    collection: Path, tmp_path: Path, mode: str
) -> None:
    ran = rollout(collection, tmp_path, mode=mode, steps=SETTINGS, model_source="/mnt/models/tiny")
    assert ran.rc == 0, ran.text
    staged = [number for number, line in enumerate(ran.log) if line.endswith(" model.stage")]
    assert len(staged) == (len(HOSTS) if mode in ("converge", "upgrade_model") else 0)
    drained = [number for number, line in enumerate(ran.log) if line.endswith("vllm_server.drain")]
    assert max(staged, default=-1) < min(drained)


def test_a_model_that_cannot_be_staged_ends_the_run_before_anything_is_drained(
    collection: Path, tmp_path: Path
) -> None:
    ran = rollout(
        collection, tmp_path, {"b2": ["model.stage"]}, mode="converge", steps=SETTINGS, model_source="hub:a/b"
    )
    assert ran.rc != 0
    assert "before the first wave, so no serving replica changed" in ran.text
    assert "drain" not in "".join(ran.log)
    assert ran.log[-1].endswith("rollout_lock released")


def test_a_failed_wave_is_rolled_back_and_no_other_begins(collection: Path, tmp_path: Path) -> None:
    change = {"from": OLD, "to": {**OLD, "version": "550.127.05"}, "began": "t"}
    ran = rollout(collection, tmp_path, fails={"a2": ["admission.verify_host"]}, change=change)
    assert ran.rc != 0
    back = [line.removeprefix("rollback:") for line in ran.of("a1") if line.startswith("rollback:")]
    assert back == [
        "vllm_server.drain",
        "vllm_server.stop",
        "admission.quarantine",
        "ray_node.stop",
        "previous_settings restored",
        "nvidia_driver.restore",
        "admission.verify_host",
        "admission.stamp_host",
        "ray_node.start",
        "admission.verify_replica",
        "vllm_server.start (deadline 77.0)",
        "vllm_server.prove",
        "admission.admit",
        "nvidia_driver_change accepted",
        "previous_settings accepted",
    ], ran.text
    assert "ray_node.start" not in ran.of("a1"), "a stage went on after a mate had failed"
    assert "nvidia_driver.install" not in ran.of("b1"), "the second wave began"
    assert ran.log.count("a1 rollout_lock released") == 1
    for once in ("a2, stage host_gates", "Report and evidence: runs/r"):
        assert ran.text.count(once) == 1, f"{once!r} is said {ran.text.count(once)} times\n{ran.text}"
    for fragment in (
        "Wave 1 of 2 failed on its way to driver 550.127.05; no further wave begins.",
        "a2, stage host_gates: admission.verify_host failed { { here }}",
        "Rolled back; it passed its gates again and serves: a1 on 550.90.07, a2 on 550.90.07.",
        "Report and evidence: runs/r",
    ):
        assert fragment in ran.text


def test_a_host_that_cannot_be_rolled_back_stays_in_quarantine(collection: Path, tmp_path: Path) -> None:
    change = {"from": OLD, "to": {**OLD, "version": "550.127.05"}, "began": "t"}
    fails = {"a2": ["nvidia_driver.install", "rollback:nvidia_driver.restore"]}
    ran = rollout(collection, tmp_path, fails=fails, change=change)
    assert ran.rc != 0
    assert ran.of("a2")[-2:] == ["admission.quarantine", "fetch_evidence"], ran.text
    assert "rollback:nvidia_driver.restore" in ran.of("a1"), "its mate was not restored"
    assert "rollback:ray_node.start" not in ran.of("a1"), "its mate waited for it"
    assert "admission.quarantine" not in ran.of("a1")[ran.of("a1").index("rollback:nvidia_driver.restore") :]
    assert "a2, stage restore_driver of the rollback: nvidia_driver.restore failed" in ran.text
    assert re.search(r"Next: .*ansible-playbook -i \S+ lockstep\.vllm\.diagnose --limit replica_a", ran.text)


def test_a_failed_change_with_nothing_to_roll_back_to(collection: Path, tmp_path: Path) -> None:
    ran = rollout(collection, tmp_path, fails={"a1": ["nvidia_driver.load"]})
    assert ran.rc != 0
    assert not [line for line in ran.log if "rollback:" in line], ran.text
    assert ran.of("a1")[-1].startswith("rollout_lock") or ran.of("a1")[-1] == "admission.quarantine"
    assert ran.of("a1").count("admission.quarantine") == 2
    assert ran.of("a2").count("admission.quarantine") == 1


SETTINGS = ("runtime", "ray", "serve")
KEPT = {"run": "r", "at": "t", "roles": ["ray_node", "serving_runtime", "vllm_server"], "runtime": "1a2b"}


@pytest.mark.parametrize("failing", ["serving_runtime.install", "vllm_server.start", "vllm_server.bake"])
def test_a_wave_that_changes_no_driver_is_rolled_back(collection: Path, tmp_path: Path, failing: str) -> None:
    """A lock that cannot be built, an argument that kills the engine, a bake that fails."""
    ran = rollout(collection, tmp_path, {"a1": [failing]}, mode="converge", steps=SETTINGS, previous=KEPT, bake=1)
    assert ran.rc != 0
    lines = without_lock(ran.of("a1"))
    assert lines.index("previous_settings kept") < lines.index("vllm_server.drain"), (
        "it is kept before anything is drained"
    )
    back = [line.removeprefix("rollback:") for line in lines if line.startswith("rollback:")]
    assert back == [
        "vllm_server.stop",
        "admission.quarantine",
        "ray_node.stop",
        "previous_settings restored",
        "admission.verify_host",
        "admission.stamp_host",
        "ray_node.start",
        "admission.verify_replica",
        "vllm_server.start (deadline 77.0)",
        "vllm_server.prove",
        "admission.admit",
        "previous_settings accepted",
    ], ran.text
    assert lines.count("admission.quarantine") == 1, "it stays in quarantine though it was rolled back"
    assert "previous_settings kept" not in ran.of("b1"), "the second wave began"
    for fragment in (
        "Rolled back; it passed its gates again and serves as before.",
        "a1, taken back: vLLM (args.max_num_seqs)",
        "The inventory still declares what failed: repair that first.",
        f"Next: {pasted(tmp_path, 'ansible-playbook lockstep.vllm.site --limit replica_a')}\n",
    ):
        assert fragment in ran.text


def test_a_later_wave_whose_packages_refuse_the_driver_is_not_drained(collection: Path, tmp_path: Path) -> None:
    change = {"from": OLD, "to": {**OLD, "version": "550.127.05"}, "began": "t"}
    ran = rollout(collection, tmp_path, {"b2": ["nvidia_driver.check"]}, change=change)
    assert ran.rc != 0
    assert "nvidia_driver.accept" in ran.of("a1"), "the wave before it was not completed"
    for host in ("b1", "b2"):
        done = [line for line in without_lock(ran.of(host)) if line not in ("host_probe", "fetch_evidence")]
        assert done == ["nvidia_driver.prefetch", "nvidia_driver.check"], ran.text
    assert "b1 rollout_lock released" in ran.log
    for fragment in (
        "Wave 2 of 2 failed on its way to driver 550.127.05; no further wave begins.",
        "b2, stage check_packages: nvidia_driver.check failed",
        "Nothing of this wave was drained or changed.",
        "Then run the same command again: it goes on with this wave.",
        f"Next: {pasted(tmp_path, 'ansible b2 -b -m ansible.builtin.command -a repair')}\n",
    ):
        assert fragment in ran.text, ran.text


def test_packages_are_not_looked_at_where_no_driver_is_due(collection: Path, tmp_path: Path) -> None:
    ran = rollout(collection, tmp_path, mode="converge", steps=SETTINGS)
    assert ran.rc == 0, ran.text
    assert not [line for line in ran.log if "nvidia_driver.check" in line]


def test_settings_that_cannot_be_kept_leave_what_serves_alone(collection: Path, tmp_path: Path) -> None:
    """A full disk on a2, where a1 has kept its settings already: neither is drained, nor rolled back."""
    fails = {"a2": ["previous_settings kept"]}
    ran = rollout(collection, tmp_path, fails, mode="converge", steps=SETTINGS, previous=KEPT)
    assert ran.rc != 0
    for host in ("a1", "a2"):
        assert [
            line for line in without_lock(ran.of(host)) if "fetch_evidence" not in line and "probe" not in line
        ] == [
            "nvidia_driver.prefetch",
            "previous_settings kept",
            *(["model.warm"] if host == "a1" else []),
        ], ran.text
    assert "a2, stage keep_settings: previous_settings kept failed" in ran.text
    assert "Rolled back" not in ran.text


def test_settings_that_cannot_be_restored_keep_the_replica_out(collection: Path, tmp_path: Path) -> None:
    fails = {"a1": ["vllm_server.start", "rollback:previous_settings restored"]}
    ran = rollout(collection, tmp_path, fails, mode="converge", steps=SETTINGS, previous=KEPT)
    assert ran.rc != 0
    assert "a1, stage restore_settings of the rollback: previous_settings restored failed" in ran.text
    assert "rollback:ray_node.start" not in ran.of("a2"), "its mate waited for it"
    assert [line for line in ran.of("a1") if "fetch_evidence" not in line and "lock" not in line][
        -1
    ] == "admission.quarantine"


def test_verifying_neither_keeps_nor_accepts_settings(collection: Path, tmp_path: Path) -> None:
    ran = rollout(collection, tmp_path, mode="verify", steps=["gates"])
    assert ran.rc == 0, ran.text
    assert not [line for line in ran.log if "previous_settings" in line]


def test_a_failed_prefetch_releases_the_lock(collection: Path, tmp_path: Path) -> None:
    ran = rollout(collection, tmp_path, fails={"b2": ["nvidia_driver.prefetch"]})
    assert ran.rc != 0
    assert "b2 rollout_lock released" in ran.log
    assert "before the first wave, so no serving replica changed" in ran.text
    assert "vllm_server.drain" not in ran.of("a1")


def test_a_request_to_pause_stops_before_the_wave(collection: Path, tmp_path: Path) -> None:
    pause = {"action": "pause", "by": "ada@ops1", "at": "2026-11-22T11:00:00Z", "reason": "lunch"}
    ran = rollout(collection, tmp_path, request=pause)
    assert ran.rc != 0
    assert "ada@ops1 asked to pause (lunch)" in ran.text
    assert "wave 1 of 2 not started; no serving replica changed" in ran.text
    assert ran.of("a1")[-1] == "rollout_lock released"
    assert "vllm_server.drain" not in ran.of("a1")


def test_a_task_that_never_ends_is_a_failure_of_its_host_and_is_rolled_back(collection: Path, tmp_path: Path) -> None:
    """A host that answers ssh and no more: a driver that hangs in the kernel, a disk that is gone."""
    change = {"from": OLD, "to": {**OLD, "version": "550.127.05"}, "began": "t"}
    ran = rollout(
        collection,
        tmp_path,
        hangs={"a2": ["nvidia_driver.load"]},
        change=change,
        options=["-e", "rollout_task_deadline=10"],
    )
    assert ran.rc != 0
    assert "rollback:nvidia_driver.restore" in ran.of("a1")
    assert "rollback:nvidia_driver.restore" in ran.of("a2")
    assert "nvidia_driver.install" not in ran.of("b1")
    assert [line for line in ran.log if line.endswith("rollout_lock released")], ran.text


def test_every_play_has_a_deadline_for_its_tasks() -> None:
    for path in (
        *(ROOT / "playbooks").glob("*.yml"),
        ROOT / "playbooks/shared/plan.yml",
        ROOT / "playbooks/shared/rollout.yml",
    ):
        for play in yaml.safe_load(path.read_text()):
            if "hosts" in play:
                assert re.fullmatch(r"\{\{ rollout_task_deadline \| default\(\d+\) \}\}", play["timeout"]), (
                    f"{path.name}: {play['name']}"
                )


def test_a_role_s_own_deadline_is_not_cut_by_the_play_s() -> None:
    """apt's, a drain's, a model's: nobody has to know a second one to make the first larger."""
    waits = re.compile(r"(tasks_from|lockstep_pre_wave_tasks): (prefetch|drain|stop|stage)\b")
    found = 0
    for path in (*(ROOT / "playbooks").glob("*.yml"), ROOT / "playbooks/shared/rollout.yml"):
        for play in yaml.safe_load(path.read_text()):
            if waits.search(yaml.safe_dump(play)):
                found += 1
                assert "default(86400)" in play["timeout"], f"{path.name}: {play['name']}"
    assert found >= 4


def test_the_plan_is_given_the_variables_that_are_set_and_no_others(collection: Path, tmp_path: Path) -> None:
    plan = dict.fromkeys(("text", "run", "mode"), "") | {"members": [], "routers": [], "waves": []}
    log = tmp_path / "log"
    variables = {
        "ansible_connection": "local",
        "log": str(log),
        "answers": {"plan": {"lockstep_plan": plan}},
        "rollout_wave_size": "50%",
        "rollout_leave_serving": False,
        "rollout_bake_seconds": 0,
    }
    lockstep = {"children": {"replica_a": {"hosts": {"a1": variables}}}}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"all": {"children": {"lockstep": lockstep}}}))
    shared = collection / "ansible_collections/lockstep/vllm/playbooks/shared/plan.yml"
    (tmp_path / "play.yml").write_text(
        yaml.safe_dump([{"name": "Plan", "ansible.builtin.import_playbook": str(shared)}])
    )
    ran = run(collection, tmp_path, log)
    assert ran.rc == 0, ran.text
    assert ran.log == ["a1 plan [('bake_seconds', 0), ('leave_serving', False), ('wave_size', '50%')]"]


@pytest.mark.parametrize(
    ("lost", "lines"),
    [
        pytest.param(
            {"a1": ["nvidia_driver.load"], "a2": ["nvidia_driver.load"]},
            ["a1, stage apply: it became unreachable", "a2, stage apply: it became unreachable"],
            id="at once",
        ),
        pytest.param(
            {"a1": ["vllm_server.drain"], "a2": ["rollback:nvidia_driver.restore"]},
            [
                "a1, stage drain_replica: it became unreachable",
                "a2, stage restore_driver of the rollback: it became unreachable",
            ],
            id="one in its rollback",
        ),
    ],
)
def test_a_wave_that_is_lost_as_a_whole_ends_in_a_verdict_and_a_released_lock(
    collection: Path, tmp_path: Path, lost: dict[str, list[str]], lines: list[str]
) -> None:
    change = {"from": OLD, "to": {**OLD, "version": "550.127.05"}, "began": "t"}
    ran = rollout(collection, tmp_path, lost=lost, change=change)
    assert ran.rc != 0
    assert [line for line in ran.log if line.endswith("rollout_lock released")] == [
        "lockstep_wave_1 rollout_lock released"
    ]
    assert "nvidia_driver.install" not in ran.of("b1"), "the second wave began"
    for fragment in (
        "Wave 1 of 2 failed on its way to driver 550.127.05; no further wave begins.",
        *lines,
        "None of its hosts can be reached, so it could not be rolled back.",
        f"Next: {pasted(tmp_path, 'ansible a1,a2 -m ansible.builtin.ping')}\n",
    ):
        assert fragment in ran.text, ran.text
    done_on_hosts = [line for line in ran.of("lockstep_wave_1") if not line.startswith("rollout_lock")]
    assert done_on_hosts == [], "the controller was taken for a host"


def test_the_lock_is_released_where_nobody_can_be_reached_before_the_first_wave(
    collection: Path, tmp_path: Path
) -> None:
    ran = rollout(collection, tmp_path, lost={host: ["nvidia_driver.prefetch"] for host in HOSTS})
    assert ran.rc != 0
    assert "lockstep_wave_1 rollout_lock released" in ran.log, ran.text
    assert "before the first wave, so no serving replica changed" in ran.text
    assert not [line for line in ran.log if "vllm_server" in line]


def test_the_lock_is_released_where_nobody_can_be_reached_after_the_last_wave(collection: Path, tmp_path: Path) -> None:
    ran = rollout(collection, tmp_path, lost={host: ["nvidia_driver_change completed"] for host in HOSTS})
    assert ran.rc != 0
    assert "nvidia_driver.accept" in ran.of("b1")
    assert ran.log[-1] == "lockstep_wave_1 rollout_lock released", ran.text


def test_the_run_ends_in_a_failure_for_who_was_left_out_once_the_others_are_done(
    collection: Path, tmp_path: Path
) -> None:
    options = "-e rollout_include_quarantined=true --limit replica_c"
    following = f"ansible-playbook playbooks/upgrade_driver.yml {options}"
    cause = "Asked for and not done:\n  - replica_c was left out: quarantined (c1: in quarantine: Xid 79)"
    ran = rollout(collection, tmp_path, left_out={"cause": cause, "next": following})
    assert ran.rc != 0
    assert "nvidia_driver.accept" in ran.of("b1"), "the others were not rolled"
    assert ran.log[-1] == "a1 rollout_lock released"
    assert "replica_c was left out: quarantined (c1: in quarantine: Xid 79)" in ran.text
    again = pasted(tmp_path, f"ansible-playbook lockstep.vllm.upgrade_driver {options}")
    assert f"Next: {again}\n" in ran.text
    assert "Wave" not in ran.text.split("Fail unless every replica was taken")[-1]
