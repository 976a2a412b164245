"""A replica of two hosts and a spare beside one of a single host, under requests that are each sent once: the spare
stands in for a lost host; a smaller layout serves rather than none, and moving up from it loses nothing; a worker may flap.

In order: each test begins with both replicas serving, as the last one left them. Every test prints its times.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.lab import Lab, eventually
from tests.e2e.rolls import Traffic, log_of, testbed_four, traffic
from tests.e2e.test_recovery import BACK, ENGINE, HEAD, LEAVES_SILENT, RANKS, engine, phases, run_waiter, show

pytestmark = pytest.mark.long

WORKERS = ("a2", "b2")
RACKS = {HEAD: "r7", "a2": "r7", "b2": "r8"}
MOVE_UP = "PYTHONPATH=/opt/lockstep/lib python3 -m lockstep.engine.cli move-up"
PATIENCE, STABLE_FOR = 10, 10
LAYOUTS = {
    "vllm_server_layouts": [
        {"name": "large", "tensor_parallel_size": 2},
        {"name": "small", "tensor_parallel_size": 1, "args": {"max_num_seqs": 4}},
    ],
    "vllm_server_layout_patience": PATIENCE,
    "vllm_server_layout_stable_for": STABLE_FOR,
    "vllm_server_layout_move_up": "window",
}


def window(begins: int) -> str:
    """A window of three hours that begins this many hours from now."""
    hour = datetime.datetime.now(datetime.UTC).replace(minute=0) + datetime.timedelta(hours=begins)
    return f"{hour:%H:%M}-{hour + datetime.timedelta(hours=3):%H:%M}"


def declared(opens: str) -> str:
    """Replica a's layouts, with the window in which it may move up, and what its hosts bring to Ray beside GPUs, as an
    inventory over the testbed's own."""
    settings = {**LAYOUTS, "vllm_server_layout_window": opens, "ray_node_resources": {"license": 2}}
    hosts = {host: {**settings, "ray_node_labels": {"rack": rack}} for host, rack in RACKS.items()}
    return json.dumps({"all": {"hosts": hosts}})


CLOSED = window(6)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Both replicas serving behind the router, and replica a may move up in a window that is closed."""
    with testbed_four("spare") as lab:
        play = lab.play(overlay=declared(CLOSED))
        assert play.rc == 0, play.explained()
        yield lab


def at_work(lab: Lab) -> list[str]:
    """Workers of replica a on which a rank of its engine runs."""
    return [host for host in WORKERS if lab.on(host, f"{RANKS} 2>/dev/null", check=False)]


def runs_raylet(lab: Lab, host: str) -> bool:
    return bool(lab.on(host, "pgrep -x raylet", check=False))


def serves(lab: Lab, layout: str) -> bool:
    now = engine(lab)
    return bool(now.get("ready")) and now["layout"] == layout


def replica_a(lab: Lab) -> dict[str, Any]:
    reported: dict[str, Any] = next(one for one in lab.status()["replicas"] if one["replica"] == "replica_a")
    return reported


def answered_by_a(lab: Lab, load: Traffic) -> float:
    """The router sends requests to replica a again; returns since when it does."""
    since = time.time()
    eventually("replica a is in rotation", lambda: router_knows(lab, load) == set(), 60)
    eventually("requests are answered", lambda: load.answered_since(since) >= 6, 120)
    return since


def router_knows(lab: Lab, load: Traffic) -> set[str]:
    """Replicas that are out of rotation now."""
    load.ended = time.time()
    return {replica for replica, _out, back in log_of(lab, load).outages(load.ended) if back == load.ended}


def nothing_lost(lab: Lab, load: Traffic) -> None:
    """Every request was answered at its only attempt, and a replica was in rotation throughout."""
    log = log_of(lab, load)
    print(f"{load.summary()}; never fewer than {log.lowest()} replicas in rotation\n{log.summary()}")
    assert load.failed == ()
    assert log.lowest() == 1, "one replica left rotation, and one stayed"


def small_serves(lab: Lab) -> None:
    """Two hosts are asked for and one is there when the engine starts: the small layout serves once patience is over."""
    lab.on(HEAD, f"systemctl stop {ENGINE}")
    for host in WORKERS:
        lab.testbed("stop", host)
    began = time.time()
    lab.on(HEAD, f"systemctl start --no-block {ENGINE}")
    eventually("the small layout serves", lambda: serves(lab, "small"), BACK)
    changes = phases(lab, began)
    show(began, *changes)
    patient = next(at for at, text in changes if f"patience of {PATIENCE} s is over" in text)
    assert patient - next(at for at, text in changes if text.startswith("waiting: large: ")) >= PATIENCE - 1
    eventually("it reports why", lambda: engine(lab)["reason"].endswith(": 1 of the 2 GPUs of large are there"), 20)


def all_three_are_there(lab: Lab) -> None:
    eventually("Ray has all three hosts", lambda: replica_a(lab)["gpus"]["total"] == 3, 120)


def test_custom_resources_and_labels_are_waited_for(lab: Lab) -> None:
    def wait(**shape: Any) -> tuple[str, str, list[str]]:
        reported = run_waiter(lab, 5, **shape)
        print(f"{shape}: {reported['code']} {reported['reason']}")
        return reported["code"], reported["reason"], sorted(node["host"] for node in reported["nodes"])

    assert wait(hosts=2, labels={"rack": "r7"}, resources={"license": 4}) == ("ready", "", [HEAD, "a2"])
    assert wait(hosts=1, labels={"rack": "r8"}, resources={"license": 2}) == ("ready", "", ["b2"])
    code, reason, counted = wait(hosts=3, labels={"rack": "r7"})
    assert (code, counted) == ("hopeless", [HEAD, "a2"])
    assert "b2: carries rack=r8" in reason
    code, reason, counted = wait(resources={"license": 7})
    assert (code, counted) == ("deadline", [HEAD, "a2", "b2"])
    assert "6 of 7 license are there" in reason


@pytest.mark.parametrize("harm", ["kill", "stop"], ids=["loses_its_power", "is_shut_down"])
def test_a_spare_stands_in_for_a_lost_worker(lab: Lab, harm: str) -> None:
    (lost,) = at_work(lab)
    (spare,) = set(WORKERS) - {lost}
    all_three_are_there(lab)
    with traffic(lab) as load:
        eventually("requests are answered", lambda: len(load.requests) >= 6, 60)
        began = time.time()
        lab.testbed(harm, lost)
        gone = time.time()
        eventually("replica a leaves rotation", lambda: router_knows(lab, load) == {"replica_a"}, 60, interval=0.5)
        eventually("replica a serves again", lambda: serves(lab, "large"), BACK, interval=0.5)
        assert at_work(lab) == [spare]
        served = answered_by_a(lab, load)
        reported = replica_a(lab)
        assert (reported["serving"], reported["layout"], reported["gpus"]["used"], reported["gpus"]["missing"]) == (
            True,
            "large",
            2,
            1,
        )
        before = engine(lab)
        lab.testbed("start", lost)
        started = time.time()
        all_three_are_there(lab)
        returned = time.time()
    log = log_of(lab, load)
    print(log.summary())
    ((_replica, out, back),) = log.outages(load.ended)
    show(
        began, *phases(lab, began), (gone, f"{lost} IS GONE ({harm})"), (out, "OUT OF THE ROUTER"),
        (back, "BACK IN THE ROUTER"), (served, "REQUESTS ARE ANSWERED BY BOTH"),
        (started, "THE LOST HOST IS STARTED"), (returned, "IT IS A SPARE"),
    )  # fmt: skip
    failed = [f"{request.at - began:.1f} s: {request.failure}" for request in load.failed]
    print(f"{load.summary()}\n" + "\n".join(failed))
    assert out - gone <= LEAVES_SILENT, f"left the router after {out - gone:.1f} s"
    assert all(request.at <= out for request in load.failed), "only what was under way in the engine that died is lost"
    assert log.lowest() == 1
    rows = {row["host"]: row["gpus"]["used"] for row in replica_a(lab)["hosts"]}
    assert rows == {HEAD: 1, spare: 1, lost: 0}
    after = engine(lab)
    disturbed = (after["restarts"], after["pid"]) != (before["restarts"], before["pid"])
    assert not disturbed, "the spare's return disturbs nothing"


def test_outside_its_window_it_moves_up_by_command_and_no_request_is_lost(lab: Lab) -> None:
    small_serves(lab)
    reported = replica_a(lab)
    assert (reported["serving"], reported["layout"], reported["gpus"]["missing"]) == (True, "small", 2)
    assert reported["reason"] == "layout small, rung none: 1 of the 2 GPUs of large are there"
    waits = f"layout small, rung none: large could serve, it moves up in the window {CLOSED} UTC"
    with traffic(lab) as load:
        began = time.time()
        lab.testbed("start", WORKERS[0])
        eventually("it reports what it waits for", lambda: engine(lab)["reason"] == waits, 120)
        reported = replica_a(lab)
        assert (reported["serving"], reported["layout"], reported["reason"]) == (True, "small", waits)
        commanded = time.time()
        lab.on(HEAD, MOVE_UP)
        eventually("the large layout serves", lambda: serves(lab, "large"), BACK, interval=0.5)
        served = time.time()
        answered_by_a(lab, load)
    show(
        began, *phases(lab, began), (began, "THE SECOND HOST IS STARTED"), (commanded, "MOVE-UP"),
        (served, "THE LARGE LAYOUT SERVES"),
    )  # fmt: skip
    nothing_lost(lab, load)
    lab.testbed("start", WORKERS[1])
    all_three_are_there(lab)


def test_in_its_window_it_moves_up_by_itself_and_no_request_is_lost(lab: Lab) -> None:
    with traffic(lab) as load:
        play = lab.play(overlay=declared(window(-1)))
        assert play.rc == 0, play.explained()
    print(f"another window: site.yml took {play.seconds:.0f} s")
    nothing_lost(lab, load)
    small_serves(lab)
    with traffic(lab) as load:
        began = time.time()
        lab.testbed("start", WORKERS[0])
        eventually("the large layout serves", lambda: serves(lab, "large"), BACK, interval=0.5)
        served = time.time()
        answered_by_a(lab, load)
    show(
        began, *phases(lab, began), (began, "THE SECOND HOST IS STARTED"), (served, "THE LARGE LAYOUT SERVES")
    )  # fmt: skip
    nothing_lost(lab, load)


def test_a_worker_that_flaps_is_used_again_once_it_stays(lab: Lab) -> None:
    flapping = WORKERS[0]
    before = engine(lab)["pid"]
    with traffic(lab) as load:
        eventually("requests are answered", lambda: len(load.requests) >= 6, 60)
        began, kills = time.time(), []
        for _ in range(4):
            eventually("its raylet is there", lambda: runs_raylet(lab, flapping), 60, interval=0.5)
            lab.testbed("kill", flapping, "raylet")
            kills.append(time.time())
        eventually("the engine has noticed", lambda: not serves(lab, "large"), 60, interval=0.2)
        eventually("the large layout serves", lambda: serves(lab, "large"), BACK, interval=0.5)
        served = time.time()
        answered_by_a(lab, load)
    log = log_of(lab, load)
    show(
        began, *phases(lab, began), *((at, "ITS RAYLET IS KILLED") for at in kills), (served, "THE LARGE LAYOUT SERVES")
    )
    print(f"{load.summary()}\n{log.summary()}")
    assert engine(lab)["pid"] == before, "it never gave up"
    assert at_work(lab) == [flapping]
    assert log.lowest() == 1
