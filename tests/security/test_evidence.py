"""Evidence is gathered as root from where the user who serves has written: nothing of root's gets into it, and it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import deadline, evidence, records
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import state as engine_state
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import evidence_bundle, nccl_tests, runner
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import launcher
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.job import Job, Part
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.launcher import Launch, Report
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.request import Asked, Request

from .conftest import PYTHON, SECRET, USER, Plant


def program(place: Path, name: str, code: str) -> str:
    """A program that anybody may run."""
    path = place / name
    path.write_text(f"#!{PYTHON} -I\n{code}")
    path.chmod(0o755)
    return str(path)


def below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


LOGS = """
import os
os.symlink({secret!r}, "nccl.h.1.log")
os.symlink("/dev/zero", "nccl.h.2.log")
os.mkfifo("nccl.h.3.log")
os.mkdir("nccl.h.4.log")
open("nccl.h.5.log", "w").write("NCCL INFO up")
open("other", "w").write("x")
{more}
raise SystemExit(1)
"""
LOGS_OF_ROOT = {"an honest rank": "", "a rank that moves its folder away": """
here = os.getcwd()
os.rename(here, here + ".moved")
os.symlink({decoy!r}, here)
"""}  # fmt: skip


@pytest.mark.parametrize("more", LOGS_OF_ROOT)
def test_logs_of_ranks_are_files_of_the_ranks(more: str, place: Path, secret: Path) -> None:
    decoy = place / "decoy"
    decoy.mkdir()
    (decoy / "nccl.h.9.log").write_text(SECRET)
    code = LOGS.format(secret=str(secret), more=LOGS_OF_ROOT[more].format(decoy=str(decoy)))
    job = Job([Part("nccl", "collectives", {}, 20)], "a1", first=0, here=1, world=1, master=("127.0.0.1", 1))
    kept = place / "evidence"
    ranks = program(place, "ranks", code)
    report = launcher.run(job, Launch({"nccl": kept}, {}, USER.pw_name, ranks, str(place)), [])
    assert report.status == "failed"
    logs = {name: text for name, text in below(kept).items() if name.startswith("nccl")}
    assert logs == {"nccl.h.5.log": "NCCL INFO up"}
    assert (decoy / "nccl.h.9.log").exists(), "and what is cleared away is the ranks' own"
    assert {path.stat().st_mode & 0o777 for path in kept.rglob("*") if path.is_file()} == {0o640}


def test_evidence_of_the_engine_leads_nowhere_else(
    place: Path, theirs: Path, secret: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "EVIDENCE", place / "of-root")
    monkeypatch.setattr(engine_state, "EVIDENCE", theirs / "evidence")
    monkeypatch.setattr(engine_state, "LOG", theirs / "engine.log")
    plant(theirs / "evidence", "folder")
    plant(theirs / "evidence/1", "folder")
    plant(theirs / "evidence/1/stacks.txt", "file", "stacks")
    plant(theirs / "evidence/1/fifo", "fifo")
    plant(theirs / "evidence/1/zero", "link", "/dev/zero")
    plant(theirs / "evidence/1/secret", "link", secret)
    plant(theirs / "evidence/etc", "link", "/etc")
    plant(theirs / "evidence/1/\x1b[2J", "file", "x")
    os.link(secret, theirs / "evidence/1/hard")
    plant(theirs / "engine.log", "link", secret)
    (place / "of-root/run").mkdir(parents=True)
    assert packed({"run": "run"}) == {str(theirs / "evidence/1/stacks.txt"): b"stacks"}


@pytest.mark.parametrize("name", ["evidence", "engine.log"])
@pytest.mark.parametrize("target", ["/etc", "/dev/zero", "FIFO"])
def test_the_engine_s_folder_itself_may_be_anything(
    name: str, target: str, place: Path, theirs: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "EVIDENCE", place)
    monkeypatch.setattr(engine_state, "EVIDENCE", theirs / "evidence")
    monkeypatch.setattr(engine_state, "LOG", theirs / "engine.log")
    plant(theirs / name, "fifo" if target == "FIFO" else "link", target)
    assert packed({"run": "none"}) == {}


def packed(params: Mapping[str, object]) -> dict[str, bytes]:
    return {path: evidence_bundle.unpack(text) for path, text in evidence_bundle.collect(params)["files"].items()}


@pytest.mark.parametrize("name", ["../../escaped", "..", "x/../../escaped", "/escaped", "a/./escaped", ".../escaped"])
def test_evidence_that_ranks_bring_stays_in_its_folder(name: str, place: Path) -> None:
    """The names come from Ray's workers, and root writes the files."""
    folder = place / "evidence" / "run" / "nccl"
    (kept,) = runner._keep(folder, {name: "text"})
    assert Path(kept).resolve().is_relative_to(folder.resolve())
    assert Path(kept).read_text() == "text"
    assert evidence_bundle.folder("..", "..").resolve().is_relative_to(records.EVIDENCE.resolve())


def test_evidence_that_is_there_already_as_a_link_is_not_written_through(place: Path, secret: Path) -> None:
    (place / "x").symlink_to(secret)
    assert evidence.output(place, "x", "text") == ()
    assert secret.read_text() == SECRET


NCCL_TESTS = """
import json, os, sys
place = sys.argv[sys.argv.index("-J") + 1]
row = {{"type": "float", "size": 8, "in_place": {{"nwrong": "0", "time": 10.0}}, "out_of_place": None}}
written = {{"args": ["all_reduce_perf"], "nccl_version": 22705, "results": [row],
           "config": {{"devices": [{{"device_info": str(os.geteuid())}}], "nthreads": 1, "ngpus": 1}}}}
{write}
"""


def nccl(place: Path, write: str) -> Report:
    tool = program(place, "all_reduce_perf", NCCL_TESTS.format(write=write))
    ranks = Report("a1", 0, 1, "done")
    return nccl_tests.measured(tool, ranks, 20, {}, place / "evidence", USER.pw_name)


def test_nccl_tests_run_as_the_user(place: Path) -> None:
    report = nccl(place, "assert os.geteuid(), 'root'\njson.dump(written, open(place, 'w'))")
    assert (report.status, [type(event).__name__ for event in report.events]) == ("done", ["Check", "Busbw"])


@pytest.mark.parametrize(
    "write",
    [
        "os.symlink('/etc/shadow', place)",
        "os.symlink('/dev/zero', place)",
        "os.mkfifo(place)",
        "open(place, 'w').write('[' * 200000)",
        "written['results'] = 3; json.dump(written, open(place, 'w'))",
        "row['in_place']['time'] = 'soon'; json.dump(written, open(place, 'w'))",
        "pass",
    ],
)
def test_what_nccl_tests_left_is_used_or_it_failed(write: str, place: Path) -> None:
    assert nccl(place, write).status == "failed"


FORGED = {
    "gate": "nccl", "verdict": "pass", "seconds": 1.0, "code": "ok", "host": "a1", "pair": None, "measured": {}, "floor": {},
    "backend": "nccl", "evidence": [], "cause": "", "next": "", "warnings": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, "ok"),
        ({"gate": "graph"}, "ray_failed"),
        ({"host": "b9"}, "ray_failed"),
        ({"pair": ["a1", "b9"]}, "ray_failed"),
        ({"verdict": "PASS"}, "ray_failed"),
        ({"seconds": "1"}, "ray_failed"),
        ({"cause": ["x"]}, "ray_failed"),
        ({"code": "fine"}, "ray_failed"),
        ({"also": 1}, "ray_failed"),
    ],
)
def test_ranks_speak_for_their_own_gate_and_hosts_alone(
    change: dict[str, object], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the ranks of a replica's gate answer comes from user ``lockstep``, and root gives stamps by it."""
    identity = {"host": "a1", "peers": {"a1": "10.0.0.1", "a2": "10.0.0.2"}, "replica": "a", "address": "10.0.0.1"}
    identity |= {"head": {"host": "a1", "address": "10.0.0.1"}, "interface": "eth0"}
    answer = "LOCKSTEP-RESULT " + json.dumps([{"result": {**FORGED, **change}, "files": {}}])
    outcome = deadline.Outcome("done", 0, 1.0, answer, "")
    monkeypatch.setattr(deadline, "run", lambda *_, **__: outcome)
    request = Request("replica", (Asked("nccl", 10, {}),))
    (result,) = runner._on_replica(request, identity, {"nccl": Path("/nonexistent")})
    assert result.code == code
