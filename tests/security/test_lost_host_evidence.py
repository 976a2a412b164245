"""Evidence of a host whose root is lost: what it sends keeps no wave from being rolled back, and opens as text (S6, S8)."""

from __future__ import annotations

import base64
import json
import types
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_collections.lockstep.vllm.plugins.action import fetch_evidence
from ansible_collections.lockstep.vllm.plugins.filter import wave
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import evidence_bundle
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import journal, page
from tests.unit import inventory
from tests.unit.playbooks import test_rollout as playbooks

collection = playbooks.collection  # the fixture


def packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


GOOD = {"files": {"/var/lib/lockstep/evidence/r1/graph/stacks.txt": packed(b"stacks")}, "left_out": []}


def fetch(folder: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, str]) -> dict[str, Any]:
    """The real action; each host is this machine with a "Python" that prints its answer, first of all of them the odd one."""
    monkeypatch.setenv(journal.ROOT_VARIABLE, str(folder / "runs"))
    hosts = {}
    for n, (name, answer) in enumerate(answers.items(), 11):
        text, python = folder / f"{name}.out", folder / f"python-{name}"
        text.write_bytes(answer.encode("utf-8", "surrogatepass"))
        python.write_text(f"#!/bin/sh\ncat > /dev/null\nexec cat {text}\n")
        python.chmod(0o755)
        address = {"gpu_host_address": f"10.0.0.{n}", "gpu_host_interface": "eth0", "ray_node_role": "head"}
        hosts[name] = {"ansible_connection": "local", "ansible_python_interpreter": str(python), **address}
    groups = {f"replica_{name}": {"hosts": {name: host}} for name, host in hosts.items()}
    (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"children": {"lockstep": {"children": groups}}}}))
    read = inventory.read(folder / "inventory.yml")
    task = types.SimpleNamespace(args={"run": "r1", "hosts": list(hosts)}, check_mode=False, become=False, async_val=0)
    context = PlayContext()
    local = connection_loader.get("local", context)
    action = fetch_evidence.ActionModule(task, local, context, read.loader, read.templar, None)
    result: dict[str, Any] = action.run(None, read.task_vars)
    return result


def said(answer: Any) -> str:
    return "\x1e" + json.dumps(answer)


BOMB = packed(b"\0" * (64 << 20))
ODD_ANSWERS = {
    "a path with NUL": said({"files": {"/x\0y": packed(b"1")}}),
    "a path with half a character": '\x1e{"files": {"/x\\ud800": "' + packed(b"1") + '"}}',
    "a name that is too long": said({"files": {"/" + "n" * 5000: packed(b"1"), "/" + "d/" * 5000: packed(b"1")}}),
    "no base64": said({"files": {"/x": "§§§"}}),
    "no zlib": said({"files": {"/x": base64.b64encode(b"plain").decode()}}),
    "half of it": said({"files": {"/x": base64.b64encode(zlib.compress(bytes(range(256)) * 9)[:-9]).decode()}}),
    "unpacks to 64 MiB": said({"files": {"/x": BOMB}}),
    "content of another type": said({"files": {"/x": 7, "/y": None, "/z": ["x"]}}),
    "files of another type": said({"files": ["/x"]}),
    "no files": said({}),
    "a list": said([1]),
    "null": said(None),
    "a number of 400 digits": '\x1e{"files": {"/x": 1' + "0" * 400 + "}}",
    "200,000 brackets": "\x1e" + "[" * 200_000,
    "no JSON": "\x1ewhat?",
    "nothing": "",
    "a path to elsewhere": said({"files": {"/../../../../../../tmp/lockstep-was-here": packed(b"1"), "/..": packed(b"2")}}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ODD_ANSWERS))
def test_an_odd_answer_costs_neither_the_task_nor_another_host_s_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    result = fetch(tmp_path, monkeypatch, {"a1": ODD_ANSWERS[name], "a2": said(GOOD)})
    assert not result.get("failed")
    beside = tmp_path / "runs/r1/evidence"
    assert (beside / "a2/var/lib/lockstep/evidence/r1/graph/stacks.txt").read_text() == "stacks"
    assert not Path("/tmp/lockstep-was-here").exists()
    assert all(
        path.resolve().is_relative_to(beside / host) for host in ("a1", "a2") for path in beside.rglob(f"{host}/**")
    )
    assert result["silent"].keys() <= {"a1"}
    assert all(warning.startswith("a1: ") and warning.isprintable() for warning in result["warnings"])


def test_what_is_kept_of_a_host_is_counted_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 MiB are only a host's promise: this one sends 6, in files that pack to nothing."""
    file = packed(b"\0" * evidence_bundle.FILE_LIMIT)
    result = fetch(tmp_path, monkeypatch, {"a1": said({"files": {f"/{n}": file for n in range(24)}})})
    assert len(result["files"]) == evidence_bundle.HOST_LIMIT // evidence_bundle.FILE_LIMIT
    (warning,) = result["warnings"]
    assert "beyond the 4 MiB" in warning
    many = fetch(tmp_path, monkeypatch, {"a1": said({"files": {f"/{n}": packed(b"1") for n in range(2000)}})})
    assert len(many["files"]) == fetch_evidence.MOST_FILES


def test_evidence_opens_as_text_and_is_linked_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = packed(b"<script>alert(1)</script>")
    files = {
        "/e/x.html": script,
        "/e/x.svg": script,
        "/e/engine.log": script,
        "/e/x.txt": script,
        "/e/.txt": script,
        "/e/a b%2f'\".js": script,
    }
    result = fetch(tmp_path, monkeypatch, {"a1": said({"files": files})})
    assert len(result["files"]) == len(files)
    assert {Path(path).suffix for path in result["files"]} == {".txt"}
    gate = {"event": "gate", "gate": "graph", "verdict": "fail", "on": "a1", "host": "a1", "evidence": list(files)}
    html = page.render([gate], page.fetched_evidence(tmp_path / "runs/r1"))
    assert html.count('<a href="evidence/a1/') == len(files)
    assert 'html"' not in html.replace('x.html.txt"', "")


BAD_RECORDS: list[Any] = [None, 7, "x", [1], {"change": 7}, {"change": {"from": 1, "to": {}}}, {"error": "torn"}]


@pytest.mark.parametrize("change", BAD_RECORDS, ids=repr)
@pytest.mark.parametrize("state", [lambda change: {"change": change}, lambda change: change], ids=["record", "state"])
def test_a_bad_record_of_one_host_does_not_keep_its_mates_from_being_rolled_back(change: Any, state: Any) -> None:
    good = {"change": {"from": {"version": "550.90.07"}, "to": {"version": "550.127.05"}}}
    seen = {
        "a1": {"lockstep_rollback_probe": {"state": state(change)}},
        "a2": {"lockstep_rollback_probe": {"state": {"change": good}}},
    }
    assert wave.wave_rolls_back(seen, ["a1", "a2"], ["a1", "a2"])


@pytest.mark.parametrize("result", [{}, {"msg": ["x"]}, {"msg": 10**5000}, {"msg": {"a": [[]]}}, {"gate": "x"}, {"gate": [1]},
                                    {"evidence": 7}, {"evidence": {"a": 1}}, {"evidence": [[1], None]},
                                    {"msg": "\x1b[2J{{ lookup('pipe', 'id') }}"}, {"msg": "x" * 10**6}])  # fmt: skip
def test_a_failure_is_kept_whatever_its_result_holds(result: dict[str, Any]) -> None:
    kept = wave.stage_failure(result, "host_gates.yml", False, "Run gates")
    assert kept["stage"] == "host_gates"
    assert len(kept["msg"]) <= 8000
    assert "\x1b" not in kept["msg"]
    assert "{{" not in kept["msg"]
    again = wave.wave_failures({"a1": {"lockstep_failures": [kept]}}, ["a1"], ["a1"])
    assert again["a1"]["msg"] == kept["msg"]


CHANGE = {"from": playbooks.OLD, "to": {**playbooks.OLD, "version": "550.127.05"}, "began": "t"}


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"a1": ["fetch_evidence"], "a2": ["fetch_evidence"]}, id="evidence cannot be fetched"),
        pytest.param({"a2": ["host_probe"]}, id="a mate cannot say what it ran before"),
    ],
)
def test_the_rollback_goes_on_without_it(collection: Path, tmp_path: Path, broken: dict[str, list[str]]) -> None:
    fails = {
        host: [*broken.get(host, []), *(["admission.verify_host"] if host == "a2" else [])] for host in ("a1", "a2")
    }
    ran = playbooks.rollout(collection, tmp_path, fails=fails, change=CHANGE)
    assert ran.rc != 0
    assert "rollback:nvidia_driver.restore" in ran.of("a1"), ran.text
    if "host_probe" in broken["a2"]:
        assert ran.of("a2")[-1] in ("admission.quarantine", "fetch_evidence"), ran.text
        assert "admission.quarantine" in ran.of("a2")
        assert "a2, stage restore_driver of the rollback: host_probe failed" in ran.text
    else:
        assert "rollback:admission.admit" in ran.of("a1"), ran.text
    assert ran.log.count("a1 rollout_lock released") == 1
    assert "nvidia_driver.install" not in ran.of("b1"), "the second wave began"
