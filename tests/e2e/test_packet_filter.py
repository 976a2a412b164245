"""The packet filter by itself, on Debian 12 and 13, under control groups of version 1 and 2: what others get, how it returns.

Nothing is served: Ray's own unit runs a program that listens where Ray, vLLM and torch would, so that a layout takes a minute.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import ROOT, Lab, eventually
from tests.e2e.test_outsider import BACK_WITHIN, CHECK, HEAD, NFT, NOT_OURS, OUTSIDER, WORKER, reaches, scan
from tests.machine import PATIENCE

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount control groups")]

NAMES = {"LOCKSTEP_TESTBED": "hard", "LOCKSTEP_TESTBED_PREFIX": "10.89.85"}
LAYOUTS = [(suite, version) for suite in ("bookworm", "trixie") for version in ("v1", "v2")]
HIERARCHY = {"v1": "tmpfs", "v2": "cgroup2fs"}
"""What systemd in a host reports of the control groups that it has."""
RELEASE = {"bookworm": "12", "trixie": "13"}
FIXED, CHOSEN = (6379, 8000, 8001), 45555
"""Ports of ours on a head, and one that the kernel hands out."""
# Ray's unit as the role writes it, but for what it runs, and for the stamp that this would have to show first.
STAND_IN = f"""
cat >/usr/local/lib/listens.py <<'END'
import signal, socket
try:
    socket.socket(socket.AF_UNIX).connect("/run/dbus/system_bus_socket")
    print("reached the bus", flush=True)
except OSError as error:
    print("no bus:", error, flush=True)
kept = [socket.create_server(("0.0.0.0", port)) for port in {(*FIXED, CHOSEN)}]
signal.pause()
END
cat >/etc/systemd/system/lockstep-ray.service.d/zz-stand-in.conf <<'END'
[Service]
ExecCondition=
ExecStart=
ExecStart=/usr/bin/python3 /usr/local/lib/listens.py
END
systemctl daemon-reload
systemctl start nftables lockstep-ray
"""
RAY = "systemctl is-active lockstep-ray; systemctl show --value -p MainPID lockstep-ray"
METRICS = "systemctl start lockstep-metrics && cat /var/lib/prometheus/node-exporter/lockstep.prom"


@dataclasses.dataclass(frozen=True)
class Layout(Lab):
    """A testbed that is seen from the mount namespace of a process, in which control groups are mounted as wanted."""

    keeper: int

    def testbed(self, *arguments: str, check: bool = True, deadline: float = 600) -> str:
        done = subprocess.run(
            ["nsenter", f"--mount=/proc/{self.keeper}/ns/mnt", f"--wdns={ROOT}", ROOT / "testbed/testbed", *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def runs(lab: Lab, host: str) -> bool:
    return lab.on(host, RAY, check=False).split()[:1] == ["active"]


@pytest.fixture(scope="module", params=LAYOUTS, ids="-".join)
def layout(request: pytest.FixtureRequest) -> Iterator[Layout]:
    suite, version = request.param
    keeper = subprocess.Popen([ROOT / "tools/with-cgroups", version, "sleep", "infinity"], start_new_session=True)
    try:
        ends = time.monotonic() + PATIENCE
        while Path(f"/proc/{keeper.pid}/comm").read_text() != "sleep\n":
            assert keeper.poll() is None, "control groups could not be mounted so"
            assert time.monotonic() < ends, "control groups were not mounted in time"
            time.sleep(0.1)
        environment = {**NAMES, "LOCKSTEP_TESTBED_SUITE": suite}
        lab = Layout(ROOT / "inventories/testbed/base", environment, keeper.pid)
        lab.testbed("down")
        try:
            lab.testbed("up", "--hosts", "2", deadline=900)
            assert lab.on(HEAD, "stat -fc %T /sys/fs/cgroup; . /etc/os-release; echo $VERSION_ID").split() == [
                HIERARCHY[version],
                RELEASE[suite],
            ]
            play = lab.play("tests/e2e/packet_filter.playbook.yml", deadline=300)
            assert play.rc == 0, play.explained()
            for host in (HEAD, WORKER):
                lab.on(host, STAND_IN)
                eventually("Ray's unit runs", lambda host=host: runs(lab, host), PATIENCE)
            print(request.param, lab.on(HEAD, "systemctl --version | head -1; nft --version; uname -r"))
            yield lab
        finally:
            lab.testbed("down")
    finally:
        keeper.kill()
        keeper.wait()


def test_an_outsider_gets_nothing_and_a_client_the_api(layout: Layout) -> None:
    assert scan(layout, OUTSIDER, HEAD) == {"open": {"22": "ssh"}, "udp": [NOT_OURS]}
    assert set(scan(layout, None, HEAD)["open"]) == {"22", "8000", "8001"}
    peer = scan(layout, WORKER, HEAD)
    assert {"22", *map(str, (*FIXED, CHOSEN))} <= set(peer["open"]), "what listens is not found, so this proves nothing"
    assert len(peer["udp"]) > 1


@pytest.mark.parametrize("command", ["nft flush ruleset", "systemctl reload nftables", "systemctl restart nftables"])
def test_a_flushed_filter_is_back_within_seconds_and_ray_never_stops(layout: Layout, command: str) -> None:
    before, ray = layout.on(HEAD, NFT), layout.on(HEAD, RAY)
    layout.on(HEAD, command)
    eventually("the filter is back", lambda: layout.on(HEAD, NFT, check=False) == before, BACK_WITHIN)
    assert layout.on(HEAD, CHECK) == "the packet filter is as wanted"
    assert layout.on(HEAD, RAY) == ray


def filter_ok(lab: Lab) -> list[str]:
    """What the unit of metrics says of the filter, with the rights that it has."""
    return re.findall(r"^lockstep_filter_ok\S* (\d)$", lab.on(HEAD, METRICS), re.MULTILINE)


def test_metrics_see_the_filter_with_the_rights_of_their_unit(layout: Layout) -> None:
    assert filter_ok(layout) == ["1"]
    layout.on(HEAD, "systemctl stop lockstep-filter-watch; nft delete table inet lockstep")
    try:
        assert filter_ok(layout) == ["0"]
    finally:
        layout.on(HEAD, "systemctl start lockstep-filter-watch")
    assert filter_ok(layout) == ["1"]


def test_who_serves_reaches_no_bus(layout: Layout) -> None:
    """By which logind would keep a manager of his running, whatever becomes of the unit."""
    assert layout.on(HEAD, "test -S /run/dbus/system_bus_socket && echo there") == "there"
    said = layout.on(HEAD, "journalctl --unit lockstep-ray --output cat")
    assert "no bus: " in said
    assert "reached the bus" not in said


def test_it_is_loaded_before_ray_at_boot(layout: Layout) -> None:
    layout.testbed("reboot", WORKER, "--wait")
    eventually("Ray's unit runs", lambda: runs(layout, WORKER), 60)
    assert layout.on(WORKER, CHECK) == "the packet filter is as wanted"
    began = layout.on(
        WORKER, "systemctl show --value -p ActiveEnterTimestampMonotonic lockstep-filter; "
        "systemctl show --value -p ExecMainStartTimestampMonotonic lockstep-ray"
    )  # fmt: skip
    loaded, started = map(int, began.split())
    assert 0 < loaded <= started


def test_what_serves_goes_where_it_is_let(layout: Layout) -> None:
    assert reaches(layout, WORKER, OUTSIDER, "lockstep"), "it cannot be reached at all, so this proves nothing"
    for egress, named in ([], False), ([layout.address(OUTSIDER)], True):
        play = layout.play(
            "tests/e2e/packet_filter.playbook.yml", extra={"gpu_host_filter_egress": egress}, deadline=300
        )
        assert play.rc == 0, play.explained()
        assert layout.on(WORKER, CHECK) == "the packet filter is as wanted"
        assert reaches(layout, WORKER, OUTSIDER, "lockstep") == named
        assert reaches(layout, WORKER, HEAD, "lockstep")
        assert reaches(layout, WORKER, OUTSIDER, "root")
    back = layout.play("tests/e2e/packet_filter.playbook.yml", deadline=300)
    assert back.rc == 0, back.explained()
    assert "skuid" not in layout.on(WORKER, NFT)


def test_without_rules_ray_goes_down_and_does_not_start(layout: Layout) -> None:
    """The last, as it leaves the worker so."""
    layout.on(WORKER, "echo '{' >/etc/lockstep/host.json; rm /run/lockstep-filter/loaded.json; nft flush ruleset")
    eventually("Ray is down", lambda: layout.on(WORKER, RAY).split()[0] in ("inactive", "failed"), 20)
    layout.on(WORKER, "systemctl stop lockstep-filter; systemctl start lockstep-ray", check=False)
    assert not runs(layout, WORKER)
