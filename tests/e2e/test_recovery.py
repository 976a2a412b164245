"""A replica of two hosts behind a router loses what it stands on: it leaves the router in time, comes back alone, and a
client that retries loses nothing. In order: each story begins with the replica serving, as the last one left it.

Every story prints the times that it measured (``pytest -rP`` shows them); docs/serving.md states those asserted here.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import re
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.clients import Traffic
from tests.e2e.lab import ROOT, Lab, eventually

HEAD, WORKER = "a1", "a2"
ENGINE = "lockstep-vllm"
pytestmark = pytest.mark.long
RANKS = "pgrep -f '^ray::RayWorker' | paste -sd' '"

# What docs/serving.md states, in seconds.
LEAVES_DEAD = 10.0
LEAVES_SILENT = 15.0
RESTARTS_WEDGED = 30.0
LATE = 40.0
# The bench's own: two ranks of vLLM start on one slow machine.
BACK = 300.0


@pytest.fixture(scope="module")
def lab(lab: Lab) -> Lab:
    """The bench's replica behind a router, serving."""
    lab = dataclasses.replace(lab, inventory=ROOT / "inventories/bench_routed")
    lab.bench("up", "--hosts", "2", "--router")
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
    """What the supervisor said of itself since a moment: ``phase: reason``."""
    words = ("waiting", "starting", "proving", "serving", "draining", "backoff", "given up", "not ready", "ready")
    return [(at, said) for at, said in journal(lab, HEAD, ENGINE, since) if said.split(":")[0] in words]


def show(began: float, *facts: tuple[float, str]) -> None:
    for at, said in sorted(facts):
        print(f"{at - began:7.1f} s  {said[:230]}")


def endure(lab: Lab, harm: Callable[[], float], leaves: float, back: float = BACK) -> float:
    """Do harm to a replica that serves; it leaves the router within ``leaves`` seconds, serves again within ``back``,
    and a client that retries has every answer. Returns the moment of the harm, which ``harm`` tells."""
    with Traffic(lab) as traffic:
        eventually("requests are answered", lambda: traffic.answered() >= 4, 60, interval=0.2)
        before = time.time()
        began = harm()
        left = traffic.wait_until(False, before, leaves + 60)
        again = traffic.wait_until(True, left, back)
        answered = traffic.answered()
        eventually("requests are answered again", lambda: traffic.answered() >= answered + 4, 60, interval=0.2)
    show(began, *phases(lab, before), (left, "OUT OF THE ROUTER"), (again, "BACK IN THE ROUTER"))
    print(traffic.told())
    assert left - began <= leaves, f"left the router after {left - began:.1f} s, stated are {leaves:.0f}"
    assert not traffic.lost()
    assert {request.text for request in traffic.requests} == {traffic.requests[0].text}
    for host in (HEAD, WORKER):
        assert len(lab.on(host, RANKS).split()) == 1, f"not one rank of the engine on {host}"
    return began


def signalled(lab: Lab, *words: str) -> Callable[[], float]:
    """``bench/bench kill`` with these words; tells when it was done."""

    def harm() -> float:
        lab.bench("kill", *words)
        return time.time()

    return harm


def status(lab: Lab) -> dict[str, Any]:
    """The replica's status as programs get it; the table for people is printed and says as much."""
    told: dict[str, Any] = lab.status()["replicas"][0]
    table = lab.play("playbooks/status.yml").text
    print("\n".join(line for line in table.splitlines() if re.match(r"replica_|  \S", line)))
    assert f"{told['replica']}: {'serving' if told['serving'] else 'NOT SERVING'} · {told['engine']}" in table
    return told


def metrics(lab: Lab, promtool: str, host: str) -> dict[str, float]:
    """The host's metrics as node_exporter would read them now, once promtool has found nothing in them."""
    command = "PYTHONPATH=/opt/lockstep/lib python3 -B -m lockstep.metrics --output /tmp/lockstep.prom"
    text = lab.on(host, f"{command} && cat /tmp/lockstep.prom && rm /tmp/lockstep.prom") + "\n"
    linted = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stderr) == (0, "")
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def engine(lab: Lab) -> dict[str, Any]:
    """What the supervisor says of itself now."""
    return lab.record(HEAD, "/run/lockstep/engine.json") or {}


def test_a_late_worker_is_named_while_it_is_waited_for(lab: Lab, promtool: str) -> None:
    lab.bench("stop", WORKER)
    before = engine(lab).get("pid")
    began = time.time()
    lab.on(HEAD, f"systemctl restart --no-block {ENGINE}")

    def asked() -> bool:
        now = engine(lab)
        return now.get("pid") != before and now.get("phase") == "waiting" and "nothing of itself" in now["reason"]

    eventually("the supervisor has asked the missing host", asked, 60, interval=0.5)
    pool = concurrent.futures.ThreadPoolExecutor()
    play = pool.submit(lab.ask, "engine_state", HEAD, state="serving", deadline=BACK)
    told = status(lab)
    assert (told["serving"], told["engine"], told["gpus"]["missing"]) == (False, "waiting", 1)
    assert WORKER in told["reason"]
    seen = metrics(lab, promtool, HEAD)
    assert seen['lockstep_engine_phase{phase="waiting"}'] == 1
    assert seen['lockstep_ray_host_joined{joined="a2"}'] == 0
    said = []
    while len(said) < 5 or time.time() - began < LATE:
        said.append(f"{engine(lab)['phase']}: {engine(lab)['reason']}")
        time.sleep(2)
    lab.bench("start", WORKER)
    started = time.time()
    waited = play.result(BACK)
    show(began, *phases(lab, began), (started, "THE WORKER IS STARTED"))
    print("\n".join(line for line in waited.text.splitlines() if "waits since" in line))
    assert all(re.match(r"waiting: .*\ba2: .*says nothing of itself", one) for one in said), said
    assert waited.rc == 0
    assert re.search(r"a1 waits since \d+ s: waiting: .*a2: .*says nothing of itself", waited.text), waited.text
    print(f"served {engine_serves(lab, began) - started:.1f} s after its worker was started")


def engine_serves(lab: Lab, since: float) -> float:
    """When the engine last began to serve."""
    return next(at for at, said in reversed(phases(lab, since)) if said.startswith("serving"))


def test_a_wedged_engine(lab: Lab) -> None:
    began = endure(lab, signalled(lab, HEAD, "VLLM::EngineCore", "--signal", "STOP"), LEAVES_SILENT)
    restarted = next(at for at, said in phases(lab, began) if said.startswith("starting"))
    assert restarted - began <= RESTARTS_WEDGED


def test_a_killed_raylet(lab: Lab) -> None:
    endure(lab, signalled(lab, WORKER, "raylet"), LEAVES_DEAD)


def test_a_wedged_rank_on_the_worker(lab: Lab) -> None:
    endure(lab, signalled(lab, WORKER, "ray::RayWorker", "--signal", "STOP"), LEAVES_SILENT)
