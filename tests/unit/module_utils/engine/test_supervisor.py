"""The supervisor as a process of its own over a stand-in for vLLM: climbing, failing, wedging, draining, giving up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.machine import PATIENCE, loopback

ROOT = Path(__file__).parents[4]
FAKE = ROOT / "tests" / "unit" / "fixtures" / "vllm" / "fake_vllm.py"
SECRET = "the-secret-of-the-api"

STOPPED = {"pid": 101, "state": "stopped", "rank": 1}
SIGHTS = {
    "a1": {"id": "ab", "sight": {"ranks": [{"pid": 100, "rank": 0}], "folder": "/e/1"}},
    "a2": {"id": "ab", "sight": {"ranks": [STOPPED], "folder": "/e/2"}},
}
NAMED = "rank 1 on a2 (pid 101) is stopped (state T); stacks in a2:/e/2 and on 1 other host"

DRIVER = textwrap.dedent(
    """
    import json, sys, time, types
    from pathlib import Path
    from lockstep.core import records

    root = Path(sys.argv[1])
    records.STATE, records.RUN, records.REQUESTS = root / "state", root / "run", root / "requests"
    records.HOST, records.ENGINE_CONFIG = root / "host.json", root / "engine.json"
    records.REPLICA_STAMP, records.ENGINE_STATE = root / "stamp.json", root / "run" / "engine.json"
    records.SHARE, records.RUNTIME = root / "share", root / "runtime"
    from lockstep.engine import cli, cluster as engine_cluster, draining, heartbeat, inquiry, layout_wait, process, startup
    from lockstep.engine import supervisor
    from lockstep.ray.codes import WaitCode
    from lockstep.core import typed
    from lockstep.ray import stacks
    from lockstep.ray import wait as ray_wait

    class Cluster:
        def __init__(self, host):
            pass

        def members(self):
            shown = json.loads((root / "ray.json").read_text())
            return engine_cluster.Members(True, shown["hosts"], shown["gpus"], shown["gpus"], frozenset(shown["nodes"]))

        def at_work(self):
            return None

        def lost(self, before):
            return engine_cluster.lost(before, self.members())

        def stacks(self, hosts, deadline):
            (root / "asked").open("a").write(" ".join(hosts) + chr(10))
            shown = json.loads((root / "stacks.json").read_text()) if (root / "stacks.json").exists() else {}
            return {host: typed.parse(stacks.Answer, answer) for host, answer in shown.items()}

        def wait(self, layout, deadline, report):
            ends, shown = time.monotonic() + deadline, ""
            while self.members().gpus < layout.gpus:
                if not shown:
                    shown = f"{layout.name}: a2 is missing"
                    report(shown)
                if time.monotonic() > ends:
                    return ray_wait.Waited(False, WaitCode.DEADLINE, shown, deadline, (), ())
                time.sleep(0.05)
            return ray_wait.Waited(True, WaitCode.READY, "", 0.0, (), ())

    def clock():
        return time.monotonic() + float((root / "passed").read_text())

    def clock_of_start():
        now = clock()
        (root / "watched").touch()
        return now

    heartbeat.Heartbeat.__init__.__defaults__ = (clock,)
    startup.time = types.SimpleNamespace(monotonic=clock_of_start, sleep=time.sleep)
    inquiry.DEADLINE = process._LAST_LINES_SECONDS = 240.0
    engine_cluster.ReplicaCluster = Cluster
    for module in (startup, supervisor, layout_wait, draining):
        module._TICK = 0.05
    startup._MEMBERS_EVERY = layout_wait._MEMBERS_EVERY = 0.3
    layout_wait._AGREES_WITHIN = 0.5
    sys.exit(cli.main(sys.argv[2:]))
    """
)


ADDRESS = loopback()
STARTS_WITHIN, STALE, WEDGED = 100.0, 100.0, 200.0
"""Seconds of which the machine takes as many as it likes: a test that waits for their end lets them pass."""


def free_port() -> int:
    with socket.create_server((ADDRESS, 0)) as taken:
        return int(taken.getsockname()[1])


class Lab:
    """A supervisor, the switches of its engine, its Ray cluster, and its clock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.passed = 0.0
        self.let_pass(0.0)
        self.switches = root / "switches"
        for folder in ("switches", "run", "credentials", "lib", "share", "runtime/bin"):
            (root / folder).mkdir(parents=True)
        table = yaml.safe_load((ROOT / "data" / "log_advice.yml").read_text(encoding="utf-8"))
        self.put("share/log_advice.json", table)
        (root / "lib" / "lockstep").symlink_to(ROOT / "plugins" / "module_utils")
        vllm = root / "runtime" / "bin" / "vllm"
        vllm.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n', encoding="utf-8")
        vllm.chmod(0o755)
        (root / "credentials" / "vllm-api-key").write_text(SECRET + "\n", encoding="utf-8")
        self.port, self.ready_port = free_port(), free_port()
        head = {"host": "a1", "address": ADDRESS}
        peers = {"a1": ADDRESS, "a2": loopback(1)}
        record = {"host": "a1", "address": ADDRESS, "interface": "lo", "gpus": 1, "head": head, "peers": peers}
        self.put("host.json", record)
        self.put("stamp.json", {"hosts": {"a1": "1111", "a2": "2222"}, "at": "2026-11-27T12:00:00Z"})
        self.ray({"a1": "1111", "a2": "2222"})
        self.configure()
        self.process: subprocess.Popen[bytes] | None = None

    def put(self, name: str, record: dict[str, Any]) -> None:
        (self.root / name).write_text(json.dumps(record), encoding="utf-8")

    def configure(self, **changes: Any) -> None:
        config = {
            "model": "/m",
            "served_model_name": "tiny",
            "layouts": [{"tensor_parallel_size": 2}],
            "proof": {"prompt": "The cluster says:", "answer": "lockstep", "deadline": PATIENCE},
            "port": self.port,
            "ready_port": self.ready_port,
            "deadlines": {"wait": PATIENCE, "start": STARTS_WITHIN, "rung": STARTS_WITHIN, "drain": 2},
            "heartbeat": {"period": 0.5, "stale": STALE, "wedged": WEDGED},
            "restarts": {"limit": 3, "backoff": 0.1, "longest": 1, "stable_seconds": 60},
        }
        self.put("engine.json", {**config, **changes})

    def let_pass(self, seconds: float) -> None:
        self.passed += seconds
        (self.root / "passed.new").write_text(str(self.passed), encoding="utf-8")
        (self.root / "passed.new").replace(self.root / "passed")

    def ray(self, hosts: dict[str, str], generation: int = 1) -> None:
        nodes = [f"{host}-{generation}" for host in hosts]
        scratch = self.root / "ray.new"
        scratch.write_text(json.dumps({"hosts": hosts, "gpus": len(hosts), "nodes": nodes}), encoding="utf-8")
        scratch.replace(self.root / "ray.json")

    def switch(self, name: str, rungs: str = "") -> None:
        (self.switches / name).write_text(rungs, encoding="utf-8")

    def clear(self, name: str) -> None:
        (self.switches / name).unlink()

    def run(self, *arguments: str) -> subprocess.Popen[bytes]:
        env = {
            **os.environ,
            "PYTHONPATH": str(self.root / "lib"),
            "FAKE_VLLM": str(self.switches),
            "CREDENTIALS_DIRECTORY": str(self.root / "credentials"),
        }
        log = (self.root / "journal").open("ab")
        argv = [sys.executable, "-c", DRIVER, str(self.root), *arguments]
        return subprocess.Popen(argv, env=env, stdout=log, stderr=log)

    def start(self) -> None:
        self.process = self.run("run")

    def state(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads((self.root / "run" / "engine.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return record

    def until(self, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            state = self.state()
            if reached(state):
                return state
            time.sleep(0.05)
        raise AssertionError(f"after {PATIENCE} s: {self.state()}\n{self.journal()}")

    def until_phase(self, *phases: str) -> dict[str, Any]:
        return self.until(lambda state: state.get("phase") in phases)

    def until_ready(self) -> dict[str, Any]:
        return self.until(lambda state: bool(state.get("ready")))

    def until_start_is_watched(self) -> None:
        """The supervisor may get less of the processor than the engine that it has started, which is in a session of its own."""
        (self.root / "watched").unlink(missing_ok=True)
        self.until(lambda _: (self.root / "watched").exists())

    def wedge(self, seconds: float, rungs: str = "") -> None:
        """The engine generates nothing any more, for so many seconds; no completion is under way that could still end."""
        (self.switches / "stuck").unlink(missing_ok=True)
        self.switch("wedges", rungs)
        self.until(lambda _: (self.switches / "stuck").exists())
        self.let_pass(seconds)

    def ready(self) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://{ADDRESS}:{self.ready_port}/ready", timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal)

    def starts(self) -> list[str]:
        return (self.switches / "starts").read_text(encoding="utf-8").split()

    def engine_log(self) -> str:
        path = self.root / "state" / "engine" / "engine.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def journal(self) -> str:
        return (self.root / "journal").read_text(encoding="utf-8")

    def ladder(self) -> dict[str, Any]:
        record = json.loads((self.root / "state" / "engine" / "ladder.json").read_text(encoding="utf-8"))
        rungs: dict[str, Any] = next(iter(record["layouts"].values()))["rungs"]
        return rungs

    def end(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    if lab.process is not None and lab.process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            lab.end()
        lab.process.kill()
        lab.process.wait()


def test_it_climbs_serves_and_stops(lab: Lab) -> None:
    lab.start()
    state = lab.until_ready()
    assert lab.starts() == ["none", "full"], "two starts of vLLM on a healthy host"
    assert (state["phase"], state["rung"], state["layout"], state["tensor_parallel_size"]) == (
        "serving",
        "full",
        "tp2pp1",
        2,
    )
    assert {rung: trial["verdict"] for rung, trial in lab.ladder().items()} == dict.fromkeys(("none", "full"), "proven")
    assert lab.ready()[0] == 200
    assert SECRET not in lab.journal() + json.dumps(state)
    assert '"--shutdown-timeout", "2"' in lab.journal()
    assert lab.end() == 0
    assert lab.state()["phase"] == "stopped"
    with pytest.raises(urllib.error.URLError):
        lab.ready()


def test_a_second_start_goes_straight_to_the_highest_proven_rung(lab: Lab) -> None:
    lab.start()
    lab.until_ready()
    lab.end()
    lab.start()
    lab.until_ready()
    assert lab.starts() == ["none", "full", "full"]
    lab.end()
    lab.put("stamp.json", {"hosts": {"a1": "1111", "a2": "3333"}, "at": "2026-11-27T12:00:00Z"})
    lab.ray({"a1": "1111", "a2": "3333"})
    lab.start()
    lab.until_ready()
    assert lab.starts()[3:] == ["none", "full"]


def test_a_rung_that_hangs_is_written_down_and_the_one_below_serves(lab: Lab) -> None:
    lab.switch("hangs", "full")
    lab.put("stacks.json", SIGHTS)
    lab.start()
    lab.until(lambda state: state.get("rung") == "full" and "No available shared memory" in lab.engine_log())
    lab.until_start_is_watched()
    lab.let_pass(STARTS_WITHIN)
    state = lab.until_ready()
    assert lab.starts() == ["none", "full", "piecewise"]
    assert state["rung"] == "piecewise"
    trial = lab.ladder()["full"]
    assert (trial["verdict"], trial["code"]) == ("failed", "start_hangs")
    assert f"did not start within {STARTS_WITHIN:g} s" in trial["cause"]
    assert "No available shared memory broadcast block" in trial["cause"]
    assert NAMED in trial["cause"]
    assert lab.journal().count("advice: A worker has not taken its next step for minutes (60 s and more)") == 1
    log = next(path for path in trial["evidence"] if path.endswith("engine.log"))
    assert "most recent call first" in Path(log).read_text(encoding="utf-8")
    lab.end()
    lab.start()
    lab.until_ready()
    assert lab.starts()[3:] == ["piecewise"]
    lab.end()
    assert lab.run("forget-ladder").wait(PATIENCE) == 0
    lab.clear("hangs")
    lab.start()
    assert lab.until_ready()["rung"] == "full"


def test_a_rung_that_answers_differently_does_not_serve(lab: Lab) -> None:
    lab.switch("differs", "piecewise full")
    lab.configure(proof={"prompt": "The cluster says:", "answer": "lock", "deadline": PATIENCE})
    lab.start()
    assert lab.until_ready()["rung"] == "none"
    assert lab.starts() == ["none", "full", "piecewise", "none"]
    for rung in ("full", "piecewise"):
        assert "token 1 is 'jaw', eager gave 'step'" in lab.ladder()[rung]["cause"]


def test_an_operator_s_own_graphs_are_the_top_rung(lab: Lab) -> None:
    lab.configure(args={"compilation-config": {"cudagraph_mode": "FULL_DECODE_ONLY"}})
    lab.start()
    assert lab.until_ready()["rung"] == "full"
    assert lab.starts() == ["none", "full"]
    assert '"cudagraph_mode": "FULL_DECODE_ONLY"' in lab.journal().replace('\\"', '"')
    assert "FULL_AND_PIECEWISE" not in lab.journal()


def test_an_engine_that_dies_while_starting_is_reported_at_once_and_given_up_in_the_end(lab: Lab) -> None:
    lab.switch("dies")
    lab.start()
    state = lab.until(lambda state: bool(state.get("failures")))
    assert "ValueError: the model is not there" in state["last_failure"]
    assert lab.process is not None
    assert lab.process.wait(PATIENCE) == 78
    state = lab.state()
    assert (state["phase"], state["failures"]) == ("given_up", 3)
    assert "3 failures in a row" in state["reason"]
    assert "ValueError: the model is not there" in state["reason"]
    assert lab.starts() == ["none"] * 3


def test_an_engine_that_dies_at_its_first_completion_reports_why(lab: Lab) -> None:
    lab.switch("fails_first")
    lab.start()
    state = lab.until(lambda state: bool(state.get("failures")))
    assert "RuntimeError: no kernel image" in state["last_failure"]


def test_a_wrong_answer_is_never_served(lab: Lab) -> None:
    lab.configure(proof={"prompt": "x", "answer": "Paris", "deadline": PATIENCE})
    lab.start()
    state = lab.until(lambda state: bool(state.get("failures")))
    assert "which does not contain 'Paris'" in state["last_failure"]
    assert not state["ready"]


def test_a_wedged_engine_leaves_the_router_is_ended_with_evidence_and_comes_back(lab: Lab) -> None:
    lab.configure(ladder=["none"])
    lab.start()
    lab.until_ready()
    lab.wedge(STALE)
    lab.until(lambda state: not state["ready"])
    assert lab.ready() == (503, {"ready": False})
    assert lab.state()["reason"]
    assert lab.state()["failures"] == 0
    lab.let_pass(WEDGED)
    state = lab.until(lambda state: state["failures"] == 1)
    assert "generates nothing" in state["last_failure"]
    assert any(path.endswith("engine.log") for path in state["evidence"])
    lab.clear("wedges")
    lab.until_ready()
    assert lab.ready()[0] == 200


def test_a_stopped_rank_is_named_while_it_is_silent_and_when_it_is_restarted(lab: Lab) -> None:
    lab.configure(ladder=["none"])
    lab.put("stacks.json", SIGHTS)
    lab.start()
    lab.until_ready()
    lab.wedge(STALE)
    state = lab.until(lambda state: bool(state["suspect"]))
    assert (state["phase"], state["failures"]) == ("serving", 0)
    assert NAMED in lab.until(lambda state: "no token comes" in state["reason"])["reason"]
    assert lab.ready() == (503, {"ready": False})
    lab.let_pass(WEDGED)
    state = lab.until(lambda state: state["failures"] == 1)
    assert NAMED in state["last_failure"]
    assert (state["suspect"]["code"], state["suspect"]["where"]) == ("stopped", [{"host": "a2", "pid": 101, "rank": 1}])
    assert (lab.root / "asked").read_text(encoding="utf-8") == "a1 a2\n", "asked once"
    lab.clear("wedges")
    state = lab.until_ready()
    assert "no token" not in state["reason"]
    assert state["suspect"]["code"] == "stopped", "of the last restart"


def test_tokens_that_come_again_take_the_name_back(lab: Lab) -> None:
    lab.configure(ladder=["none"])
    lab.put("stacks.json", SIGHTS)
    lab.start()
    reason = lab.until_ready()["reason"]
    lab.wedge(STALE)
    lab.until(lambda state: NAMED in state["reason"])
    lab.clear("wedges")
    state = lab.until_ready()
    assert (state["reason"], state["suspect"], state["failures"]) == (reason, None, 0)
    assert len(lab.starts()) == 1


def test_graphs_that_hang_while_serving_cost_the_rung_the_second_time(lab: Lab) -> None:
    lab.configure(ladder=["none", "full"])
    lab.start()
    lab.until_ready()
    for _ in range(2):
        starts = len(lab.starts())
        lab.wedge(WEDGED, "full")
        lab.until(lambda state: len(lab.starts()) > starts)  # noqa: B023
        lab.clear("wedges")
        lab.until_ready()
    assert lab.state()["rung"] == "none"
    assert lab.ladder()["full"]["code"] == "wedged"
    assert lab.starts() == ["none", "full", "full", "none"]


def test_a_killed_engine_comes_back_and_its_orphans_are_gone(lab: Lab) -> None:
    lab.configure(ladder=["none"])
    lab.switch("forks")
    lab.start()
    lab.until_ready()
    (engine,) = _running("--host", ADDRESS)
    (orphan,) = _running("--worker-of", f"{ADDRESS}:{lab.port}")
    os.kill(engine, signal.SIGKILL)
    state = lab.until(lambda state: state["restarts"] == 1)
    assert "vLLM ended with status -9" in state["last_failure"]
    lab.until_ready()
    (worker,) = _running("--worker-of", f"{ADDRESS}:{lab.port}")
    assert worker != orphan


def _running(option: str, value: str) -> list[int]:
    """Processes that were started with this option."""
    pids = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [int(path.name) for path in pids if f"{option}\0{value}\0".encode() in _command(path)]


def _command(path: Path) -> bytes:
    try:
        return (path / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_host_that_joined_with_another_fingerprint_is_refused(lab: Lab) -> None:
    lab.ray({"a1": "1111", "a2": "9999"})
    lab.start()
    assert lab.process is not None
    assert lab.process.wait(PATIENCE) == 78
    assert "a2 joined with fingerprint 9999, the replica stamp was given for 2222" in lab.state()["reason"]
    assert not (lab.switches / "starts").exists()


def test_a_host_lost_while_starting_does_not_count_against_the_rung(lab: Lab) -> None:
    lab.configure(ladder=["none", "full"])
    lab.switch("hangs", "full")
    lab.start()
    lab.until(lambda state: state.get("rung") == "full" and state.get("phase") == "starting")
    lab.ray({"a1": "1111"})
    lab.until(lambda state: "lost a2 while vLLM started" in state["last_failure"])
    assert "full" not in lab.ladder()
    lab.clear("hangs")
    lab.ray({"a1": "1111", "a2": "2222"}, generation=2)
    assert lab.until_ready()["rung"] == "full"


def test_nobody_comes_within_the_deadline(lab: Lab) -> None:
    lab.configure(deadlines={"wait": 1})
    lab.ray({"a1": "1111"})
    lab.start()
    assert lab.process is not None
    assert lab.process.wait(PATIENCE) == 78
    assert "tp2pp1 cannot start (deadline): tp2pp1: a2 is missing" in lab.state()["reason"]


def test_drain_waits_for_requests_and_resume_serves_again(lab: Lab) -> None:
    lab.configure(ladder=["none"], deadlines={"start": STARTS_WITHIN, "drain": PATIENCE})
    lab.start()
    lab.until_ready()
    lab.switch("busy")
    assert lab.run("drain").wait(PATIENCE) == 0
    lab.until_phase("draining")
    assert lab.ready() == (503, {"ready": False})
    assert lab.state()["reason"] == "asked on the command line"
    time.sleep(0.3)
    assert lab.state()["phase"] == "draining"
    lab.clear("busy")
    lab.until_phase("drained")
    assert lab.ready()[0] == 503
    assert lab.run("resume").wait(PATIENCE) == 0
    lab.until_ready()
    assert lab.starts() == ["none"]
    shown = [line for line in lab.journal().splitlines() if line.startswith(("ready", "not ready", "draining:"))]
    assert [line.partition(":")[0] for line in shown] == ["ready", "draining", "ready"]


def test_a_smaller_layout_serves_until_the_larger_one_can(lab: Lab) -> None:
    layouts = [{"name": "large", "tensor_parallel_size": 2}, {"name": "small", "tensor_parallel_size": 1}]
    lab.configure(ladder=["none"], layouts=layouts, policy={"patience": 0.5, "stable_for": 0.5, "move_up": "command"})
    lab.ray({"a1": "1111"})
    lab.start()
    assert lab.until_ready()["layout"] == "small"
    assert "patience of 0 s is over" in lab.journal()
    why = "layout small, rung none: 1 of the 2 GPUs of large are there"
    serving = lab.until(lambda state: state["reason"] == why)
    lab.ray({"a1": "1111", "a2": "2222"})
    waits = "layout small, rung none: large could serve, it moves up by command: python3 -m lockstep.engine.cli move-up"
    state = lab.until(lambda state: state["reason"] == waits)
    assert (state["layout"], state["ready"], state["since"]) == ("small", True, serving["since"])
    assert lab.journal().count(waits) == 1, "it is logged once"
    assert lab.run("move-up").wait(PATIENCE) == 0
    state = lab.until(lambda state: state["layout"] == "large" and state["ready"])
    assert (state["failures"], state["restarts"]) == (0, 0)
    request, followed = lab.root / "requests" / "move-up.json", lab.root / "run" / "moved-up.json"
    assert lab.run("move-up").wait(PATIENCE) == 0
    asked = json.loads(request.read_text())["id"]
    lab.until(lambda _: json.loads(followed.read_text())["id"] == asked)


def test_a_configuration_that_cannot_be_run_is_given_up_with_its_reason(lab: Lab) -> None:
    lab.configure(ladder=["eager"])
    lab.start()
    assert lab.process is not None
    assert lab.process.wait(PATIENCE) == 78
    assert "vllm_server_ladder" in lab.state()["reason"]


def status_for(lab: Lab, key: str) -> int:
    asked = urllib.request.Request(
        f"http://{ADDRESS}:{lab.port}/v1/completions",
        json.dumps({"model": "tiny", "prompt": "p", "max_tokens": 1}).encode(),
        {"Authorization": f"Bearer {key}"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_while_a_key_is_rotated_clients_of_both_are_answered_and_no_argument_holds_one(lab: Lab) -> None:
    old = "the-key-before-it"
    (lab.root / "credentials" / "vllm-api-keys.yml").write_text(json.dumps({"api-key": [SECRET, old]}))
    lab.configure(ladder=["none"])
    lab.start()
    lab.until_ready()  # the proof and the heartbeat send the new one
    assert [status_for(lab, key) for key in (SECRET, old, "another")] == [200, 200, 401]
    shown = lab.journal()
    assert "vllm-api-keys.yml" in shown
    assert SECRET not in shown
    assert old not in shown
    assert lab.process is not None
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
            assert str(lab.root) not in command or (SECRET not in command and old not in command)
