"""A replica of two hosts behind a router loses what it stands on: it leaves the router in time, comes back alone, and a
client that retries loses nothing. In order: each test begins with the replica serving, as the last one left it.

Every test prints the times that it measured (``pytest -rP``); docs/operations/serving.md states those asserted here.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.clients import Traffic
from tests.e2e.lab import ROOT, Lab, eventually

HEAD, WORKER = "a1", "a2"
ENGINE, RAY = "lockstep-vllm", "lockstep-ray"
RANKS = "pgrep -f '^ray::RayWorker' | paste -sd' '"

# What docs/operations/serving.md states, in seconds.
LEAVES_DEAD = 10.0
LEAVES_SILENT = 15.0
RESTARTS_WEDGED = 30.0
NAMED = 30.0
LATE = 40.0
# The testbed's own: two ranks of vLLM start on one slow machine.
BACK = 300.0


@pytest.fixture(scope="module")
def lab(lab: Lab) -> Lab:
    """The testbed's replica behind a router, serving."""
    lab = dataclasses.replace(lab, inventory=ROOT / "inventories/testbed/routed")
    lab.testbed("up", "--hosts", "2", "--router")
    play = lab.play()
    assert play.rc == 0, play.explained()
    return lab


def journal(lab: Lab, host: str, unit: str, since: float) -> list[tuple[float, str]]:
    """Moment and message of a unit's lines since a moment."""
    text = lab.on(host, f"journalctl -u {unit} --since @{int(since)} -o json --output-fields=MESSAGE --no-pager")
    entries = [json.loads(line) for line in text.splitlines()]
    moments = [(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, str(entry.get("MESSAGE"))) for entry in entries]
    return [(at, message) for at, message in moments if at >= since]


def phases(lab: Lab, since: float) -> list[tuple[float, str]]:
    """What the supervisor reported since a moment: ``phase: reason``."""
    known = ("waiting", "starting", "proving", "serving", "draining", "backoff", "given up", "not ready", "ready")
    return [(at, line) for at, line in journal(lab, HEAD, ENGINE, since) if line.split(":")[0] in known]


def show(began: float, *facts: tuple[float, str]) -> None:
    for at, line in sorted(facts):
        print(f"{at - began:7.1f} s  {line[:230]}")


def endure(lab: Lab, harm: Callable[[], float], leaves: float, back: float = BACK) -> float:
    """Do harm to a replica that serves; it leaves the router within ``leaves`` seconds, serves again within ``back``,
    and a client that retries has every answer. Returns the moment of the harm, which ``harm`` returns."""
    with Traffic(lab) as traffic:
        eventually("requests are answered", lambda: traffic.answered() >= 4, 60, interval=0.2)
        before = time.time()
        began = harm()
        left = traffic.wait_until(False, before, leaves + 60)
        again = traffic.wait_until(True, left, back)
        answered = traffic.answered()
        eventually("requests are answered again", lambda: traffic.answered() >= answered + 4, 60, interval=0.2)
    show(began, *phases(lab, before), (left, "OUT OF THE ROUTER"), (again, "BACK IN THE ROUTER"))
    print(traffic.summary())
    assert left - began <= leaves, f"left the router after {left - began:.1f} s, stated are {leaves:.0f}"
    assert not traffic.lost()
    assert {request.text for request in traffic.requests} == {traffic.requests[0].text}
    for host in (HEAD, WORKER):
        assert len(lab.on(host, RANKS).split()) == 1, f"not one rank of the engine on {host}"
    return began


def signalled(lab: Lab, *arguments: str) -> Callable[[], float]:
    """``testbed/testbed kill`` with these arguments; returns when it was done."""

    def harm() -> float:
        lab.testbed("kill", *arguments)
        return time.time()

    return harm


def status(lab: Lab) -> dict[str, Any]:
    """The replica's status as programs get it; the table for people is printed and shows the same."""
    reported: dict[str, Any] = lab.status()["replicas"][0]
    table = lab.play("playbooks/status.yml").text
    print("\n".join(line for line in table.splitlines() if re.match(r"replica_|  \S", line)))
    assert (
        f"{reported['replica']}: {'serving' if reported['serving'] else 'NOT SERVING'} · {reported['engine']}" in table
    )
    return reported


def metrics(lab: Lab, promtool: str, host: str) -> dict[str, float]:
    """The host's metrics as node_exporter would read them now, once promtool has found nothing in them."""
    command = "PYTHONPATH=/opt/lockstep/lib python3 -B -m lockstep.host.metrics --output /tmp/lockstep.prom"
    text = lab.on(host, f"{command} && cat /tmp/lockstep.prom && rm /tmp/lockstep.prom") + "\n"
    linted = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stderr) == (0, "")
    text = re.sub(r'\{host="\w+",replica="\w+"(?:,|\})', "{", text).replace(
        "{ ", " "
    )  # the labels that every series has
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def engine(lab: Lab) -> dict[str, Any]:
    """What the supervisor reports now."""
    return lab.record(HEAD, "/run/lockstep/engine.json") or {}


@pytest.mark.long
def test_a_late_worker_is_named_while_it_is_waited_for(lab: Lab, promtool: str) -> None:
    lab.testbed("stop", WORKER)
    before = engine(lab).get("pid")
    began = time.time()
    lab.on(HEAD, f"systemctl restart --no-block {ENGINE}")

    def asked() -> bool:
        now = engine(lab)
        return now.get("pid") != before and now.get("phase") == "waiting" and "gives no status" in now["reason"]

    eventually("the supervisor has asked the missing host", asked, 60, interval=0.5)
    pool = concurrent.futures.ThreadPoolExecutor()
    play = pool.submit(lab.ask, "engine_state", HEAD, state="serving", deadline=BACK)
    reported = status(lab)
    assert (reported["serving"], reported["engine"], reported["gpus"]["missing"]) == (False, "waiting", 1)
    assert WORKER in reported["reason"]
    seen = metrics(lab, promtool, HEAD)
    assert seen['lockstep_engine_phase{phase="waiting"}'] == 1
    assert seen['lockstep_ray_host_joined{joined="a2"}'] == 0
    reasons: list[str] = []
    while len(reasons) < 5 or time.time() - began < LATE:
        reasons.append(f"{engine(lab)['phase']}: {engine(lab)['reason']}")
        time.sleep(2)
    lab.testbed("start", WORKER)
    started = time.time()
    waited = play.result(BACK)
    show(began, *phases(lab, began), (started, "THE WORKER IS STARTED"))
    print("\n".join(line for line in waited.text.splitlines() if "waiting for" in line))
    assert all(re.match(r"waiting: .*\ba2: .*gives no status on port 6386", one) for one in reasons), reasons
    assert waited.rc == 0
    assert re.search(r"a1: waiting for \d+ s: waiting: .*a2: .*gives no status on port 6386", waited.text), waited.text
    print(f"served {engine_serves(lab, began) - started:.1f} s after its worker was started")


def engine_serves(lab: Lab, since: float) -> float:
    """When the engine last began to serve."""
    return next(at for at, line in reversed(phases(lab, since)) if line.startswith("serving"))


def test_a_wedged_engine(lab: Lab) -> None:
    began = endure(lab, signalled(lab, HEAD, "VLLM::EngineCore", "--signal", "STOP"), LEAVES_SILENT)
    restarted = next(at for at, line in phases(lab, began) if line.startswith("starting"))
    assert restarted - began <= RESTARTS_WEDGED


def test_a_killed_raylet(lab: Lab) -> None:
    endure(lab, signalled(lab, WORKER, "raylet"), LEAVES_DEAD)


@pytest.mark.long
def test_a_wedged_rank_on_the_worker(lab: Lab) -> None:
    (pid,) = lab.on(WORKER, RANKS).split()
    named: list[float] = []

    def harm() -> float:
        moment = signalled(lab, WORKER, "ray::RayWorker", "--signal", "STOP")()
        said = rf"rank 1 on {WORKER} \(pid {pid}\) is stopped \(state T\); stacks in {WORKER}:/var/lib/lockstep/engine/"

        def names_it() -> bool:
            return re.search(said, engine(lab).get("reason", "")) is not None

        eventually(f"the engine names rank 1 on {WORKER}", names_it, NAMED, interval=0.5)
        named.append(time.time() - moment)
        return moment

    began = endure(lab, harm, LEAVES_SILENT)
    print(f"named {named[0]:.1f} s after it was stopped")
    assert named[0] <= NAMED
    now = engine(lab)
    assert (now["suspect"]["code"], now["suspect"]["where"]) == (
        "stopped",
        [{"host": WORKER, "rank": 1, "pid": int(pid)}],
    )
    assert f"rank 1 on {WORKER}" in now["last_failure"]
    folders = dict(one.split(":", 1) for one in now["suspect"]["evidence"])
    assert sorted(folders) == [HEAD, WORKER]
    for host, folder in folders.items():
        assert "ray::RayWorker" in lab.on(host, f"cat {shlex.quote(folder)}/threads.txt")
    assert '"MainThread"' in lab.on(WORKER, f"cat {shlex.quote(folders[WORKER])}/stack.{pid}.txt")
    restarted = next(at for at, line in phases(lab, began) if line.startswith("starting"))
    assert restarted - began <= RESTARTS_WEDGED


@pytest.mark.long
def test_a_worker_that_is_cut_off_for_a_minute(lab: Lab) -> None:
    def harm() -> float:
        lab.testbed("cut", WORKER)
        moment = time.time()
        time.sleep(60)
        lab.testbed("reconnect", WORKER)
        return moment

    endure(lab, harm, LEAVES_SILENT)


@pytest.mark.long
def test_a_head_that_loses_its_power(lab: Lab) -> None:
    def harm() -> float:
        lab.testbed("kill", HEAD)
        moment = time.time()
        time.sleep(20)
        lab.testbed("start", HEAD)
        return moment

    endure(lab, harm, LEAVES_DEAD)


def run_waiter(lab: Lab, deadline: float = 60, **shape: Any) -> dict[str, Any]:
    """What the waiter on the head ends with, asked as the engine asks it, without a controller."""
    python = "PYTHONPATH=/opt/lockstep/lib /opt/lockstep/runtime/current/bin/python"
    command = f"{python} -m lockstep.ray.wait --json --deadline {deadline} --shape {shlex.quote(json.dumps(shape))}"
    reported: dict[str, Any] = json.loads(lab.on(HEAD, f"{command} 2>/dev/null", check=False).splitlines()[-1])
    return reported


SITE_PACKAGES = "/opt/lockstep/runtime/current/lib/python3.11/site-packages"
STAMPED = {"stamp": {"kind": "host", "run": "e2e", "gates": [{"gate": "driver", "verdict": "pass"}]}}


@dataclasses.dataclass(frozen=True)
class Kept:
    """How the worker is kept out of Ray, what undoes that, and the code that the waiter on the head reports."""

    code: str
    how: str = "true"
    undo: str = "true"
    modules: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    undo_modules: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    reason: str = ""


KEPT_OUT = (
    Kept(
        "token_refused",
        "cp -p /etc/lockstep/ray-token /root/token && echo other > /etc/lockstep/ray-token",
        "mv /root/token /etc/lockstep/ray-token",
        reason="the head a1 refuses its token",
    ),
    Kept(
        "version_refused",
        f"mv {SITE_PACKAGES}/ray-2.60.0.dist-info {SITE_PACKAGES}/ray-2.59.0.dist-info",
        f"mv {SITE_PACKAGES}/ray-2.59.0.dist-info {SITE_PACKAGES}/ray-2.60.0.dist-info",
        modules=STAMPED,
        undo_modules=STAMPED,
        reason="runs Ray 2.59.0",
    ),
    Kept(
        "address_absent",
        'sed -i.kept \'s/"address": "\\([0-9.]*\\)\\.12"/"address": "\\1.112"/\' /etc/lockstep/host.json',
        "mv /etc/lockstep/host.json.kept /etc/lockstep/host.json",
        reason="is on none of its interfaces",
    ),
    Kept(
        "wrong_address",
        'sed -i.kept \'s/"address": "\\([0-9.]*\\)\\.12"/"address": "\\1.112"/\' /etc/lockstep/host.json'
        " && ip address add $(hostname -I | cut -d' ' -f1 | sed 's/[.]12$/.112/')/24 dev eth0",
        "mv /etc/lockstep/host.json.kept /etc/lockstep/host.json"
        " && ip address del $(hostname -I | cut -d' ' -f1 | sed 's/[.]12$/.112/')/24 dev eth0",
        reason="joined as",
    ),
    Kept(
        "quarantined",
        modules={"quarantine": {"reason": "DIMM 3 swapped", "owner": "ada@ops", "run": "by hand"}},
        undo_modules={"quarantine": {"state": "absent", "kinds": ["operator"]}},
        reason="DIMM 3 swapped (by ada@ops)",
    ),
)


@pytest.fixture(scope="module")
def idle(lab: Lab) -> Iterator[Lab]:
    """The replica with its engine stopped, so that the worker may be kept out of Ray; it serves again afterwards."""
    lab.on(HEAD, f"systemctl stop {ENGINE}")
    yield lab
    lab.on(HEAD, f"systemctl start --no-block {ENGINE}")
    eventually("the replica serves again", lambda: bool(engine(lab).get("ready")), BACK)


@pytest.mark.long
@pytest.mark.parametrize("kept", KEPT_OUT, ids=lambda kept: kept.code)
def test_what_keeps_a_worker_out_is_reported_at_once(idle: Lab, kept: Kept) -> None:
    lab = idle
    assert run_waiter(lab)["ready"], "the worker is there before"
    lab.on(WORKER, f"systemctl stop {RAY}; {kept.how}")
    for module, arguments in kept.modules.items():
        assert lab.ask(module, WORKER, **arguments).rc == 0
    try:
        lab.on(WORKER, f"systemctl start --no-block {RAY}")
        reported = run_waiter(lab)
        print(f"{reported['code']} after {reported['seconds']:.1f} s: {reported['reason']}")
        assert reported["code"] == "hopeless"
        assert [(one["host"], one["code"], one["final"]) for one in reported["missing"]] == [(WORKER, kept.code, True)]
        assert kept.reason in reported["reason"]
        assert reported["seconds"] < 30
        if kept.code == "quarantined":
            seen = status(lab)["hosts"][1]
            assert (seen["quarantine"]["owner"], seen["ray"]) == ("ada@ops", "not admitted")
    finally:
        lab.on(WORKER, f"systemctl stop {RAY}; {kept.undo}")
        for module, arguments in kept.undo_modules.items():
            assert lab.ask(module, WORKER, **arguments).rc == 0
        lab.on(WORKER, f"systemctl start --no-block {RAY}")


@pytest.mark.long
def test_a_wait_ends_at_its_deadline_and_an_impossible_one_at_once(idle: Lab) -> None:
    lab = idle
    assert run_waiter(lab)["ready"]
    reported = run_waiter(lab, hosts=3)
    assert (reported["code"], reported["seconds"]) == ("impossible", 0.0)
    assert reported["reason"] == "3 hosts are required, the replica has 2: a1, a2"
    lab.on(WORKER, f"systemctl stop {RAY}")
    try:
        assert lab.on(WORKER, f"systemctl is-active {RAY}", check=False) == "inactive", "a clean stop is no failure"
        reported = run_waiter(lab, deadline=8)
        print(f"{reported['code']} after {reported['seconds']:.1f} s: {reported['reason']}")
        assert reported["code"] == "deadline"
        assert 8 <= reported["seconds"] < 10
        assert [(one["host"], one["code"]) for one in reported["missing"]] == [(WORKER, "unit_not_started")]
    finally:
        lab.on(WORKER, f"systemctl start --no-block {RAY}")


LAYOUTS = {
    "vllm_server_layouts": [
        {"name": "large", "tensor_parallel_size": 2},
        {"name": "small", "tensor_parallel_size": 1, "args": {"max_model_len": 128}},
    ],
    "vllm_server_layout_patience": 10,
    "vllm_server_layout_stable_for": 10,
    "vllm_server_ladder": ["none"],
    "vllm_server_restarts": {"limit": 2, "backoff": 2, "longest": 10, "stable_seconds": 30},
}


@pytest.fixture(scope="module")
def layered(lab: Lab) -> Lab:
    """The replica with a smaller layout to fall back on."""
    play = lab.play(extra=LAYOUTS)
    assert play.rc == 0, play.explained()
    return lab


@pytest.mark.long
def test_the_small_layout_serves_until_the_large_one_can(layered: Lab, promtool: str) -> None:
    lab = layered
    with Traffic(lab) as traffic:
        eventually("requests are answered", lambda: traffic.answered() >= 4, 60, interval=0.2)
        began = time.time()
        lab.testbed("stop", WORKER)
        left = traffic.wait_until(False, began, 60)
        small = traffic.wait_until(True, left, BACK)
        assert engine(lab)["layout"] == "small"
        reported = status(lab)
        assert (reported["serving"], reported["layout"], reported["gpus"]["missing"]) == (True, "small", 1)
        info = 'lockstep_engine_info{layout="small",tensor_parallel_size="1",pipeline_parallel_size="1",rung="none"}'
        assert metrics(lab, promtool, HEAD)[info] == 1
        lab.testbed("start", WORKER)
        back = time.time()
        moved = traffic.wait_until(False, back, 120)
        large = traffic.wait_until(True, moved, BACK)
        assert engine(lab)["layout"] == "large"
    show(
        began, *phases(lab, began), (left, "OUT OF THE ROUTER"), (small, "THE SMALL LAYOUT SERVES"),
        (back, "THE WORKER IS STARTED"), (moved, "OUT OF THE ROUTER"), (large, "THE LARGE LAYOUT SERVES"),
    )  # fmt: skip
    print(traffic.summary())
    assert not traffic.lost()


@pytest.mark.long
def test_giving_up_is_a_state_with_a_reason(layered: Lab) -> None:
    lab = layered
    lab.testbed("fault", HEAD, "engine_wont_start", "CUDA error: no GPU")
    began = time.time()
    try:
        lab.testbed("kill", HEAD, "VLLM::EngineCore")
        eventually(
            "the unit has failed", lambda: lab.on(HEAD, f"systemctl is-failed {ENGINE}", check=False) == "failed", BACK
        )
        show(began, *phases(lab, began))
        reported = status(lab)
        assert (reported["serving"], reported["engine"]) == (False, "given_up")
        assert "2 failures in a row" in reported["reason"]
        assert "CUDA error: no GPU" in reported["reason"]
    finally:
        lab.testbed("fault", HEAD, "--clear")
    play = lab.play(extra=LAYOUTS)
    assert play.rc == 0, play.explained()
    assert engine(lab)["ready"]
