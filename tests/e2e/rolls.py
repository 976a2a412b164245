"""Two replicas behind the router, and rolls on them under load."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.e2e.lab import ROOT, Lab, Play, eventually
from tests.e2e.traffic import RouterLog, Traffic, router_log, shares

OLD, NEW = "550.90.07", "550.127.05"
REPLICAS = {"replica_a": "a1", "replica_b": "b1"}
HEADS = tuple(REPLICAS.values())
ROUTER = "router1"
UPGRADE = "playbooks/upgrade_driver.yml"


@contextlib.contextmanager
def testbed_four(inventory: str) -> Iterator[Lab]:
    """Four bare hosts and the router, by an inventory of inventories/testbed/; with LOCKSTEP_KEEP_TESTBED as an earlier
    session left them, and left up."""
    names = ("LOCKSTEP_TESTBED", "LOCKSTEP_TESTBED_PREFIX")
    pair = Lab(
        inventory=ROOT / "inventories/testbed" / inventory,
        environment={name: os.environ[name] for name in names if os.environ.get(name)},
    )
    keep = bool(os.environ.get("LOCKSTEP_KEEP_TESTBED"))
    if not keep:
        pair.testbed("down")
    pair.testbed("up", "--hosts", "4", "--router", deadline=900)
    yield pair
    if not keep:
        pair.testbed("down")


@dataclasses.dataclass(frozen=True)
class Roll:
    """One run of upgrade_driver.yml under load: what Ansible, the client and the router report of it."""

    play: Play
    load: Traffic
    log: RouterLog

    def report(self) -> str:
        """The HTML report that the run has named in its last line."""
        named = re.findall(r"report:\s+(\S+\.html)", re.sub(r"\x1b\[[0-9;]*m|\r", "", self.play.text))
        assert named, f"no report is named: {self.play.text[-3000:]}"
        name = named[-1]
        return (ROOT / name).read_text(encoding="utf-8")

    def downtimes(self) -> Iterator[tuple[str, float, float]]:
        """Replica, seconds out of rotation, and how many of these its tasks took; the rest is what Ansible adds between."""
        for replica, out, back in self.log.outages(self.load.ended):
            yield replica, back - out, self.play.spent(REPLICAS[replica], out, back)

    def summary(self) -> str:
        outages = ", ".join(
            f"{replica} {down:.0f} s, {down / max(bare, 0.1):.2f} times its tasks"
            for replica, down, bare in self.downtimes()
        )
        return (
            f"\nexit {self.play.rc} after {self.play.seconds:.0f} s\n{self.load.summary()}\nthe router's log: "
            f"{len(self.log.served)} requests, answered by {shares(self.log.served)}; never fewer than {self.log.lowest()} in "
            f"rotation; out: {outages or 'none'}\n{self.log.summary()}"
        )


@dataclasses.dataclass(frozen=True)
class Incident:
    """Something that happens to the cluster in the middle of a roll: its moment, whether that has come, what happens."""

    moment: str
    is_due: Callable[[Lab], bool]
    happens: Callable[[Lab], object]


def to(version: str) -> dict[str, Any]:
    return {"nvidia_driver_version": version}


def other(version: str) -> str:
    return NEW if version == OLD else OLD


def driver(lab: Lab, host: str) -> str:
    return lab.on(host, "cat /sys/module/nvidia/version 2>/dev/null || true", check=False)


def serving(lab: Lab, alike: bool = True) -> dict[str, str]:
    """Both replicas serve, without faults; which driver each head has. ``alike``: both the same one."""
    for host in HEADS:
        lab.testbed("fault", host, "--clear")
    versions = {host: NEW if driver(lab, host) == NEW else OLD for host in HEADS}
    if alike and len(set(versions.values())) > 1:
        versions = dict.fromkeys(HEADS, OLD)
    play = lab.play(overlay=declaring(versions))
    assert play.rc == 0, play.explained()
    for host, version in versions.items():
        verified(lab, host, version)
    return versions


def declaring(versions: Mapping[str, str]) -> str:
    """An inventory over the testbed's own that declares a driver for each head."""
    return json.dumps({"all": {"hosts": {host: to(version) for host, version in versions.items()}}})


def nothing_due(lab: Lab, versions: Mapping[str, str]) -> None:
    """An inventory that declares what runs leads to no wave, also where it allows another time for it."""
    play = lab.play(
        overlay=declaring(versions), extra={"nvidia_driver_apt_deadline": 121, "nvidia_driver_reboot_deadline": 61}
    )
    assert play.rc == 0, play.explained()
    assert not re.search(r"(canary|wave) \d+ of \d+", play.text), play.explained()


def traffic(lab: Lab, key: str = "") -> Traffic:
    facts = lab.facts()
    prefix = lab.environment.get("LOCKSTEP_TESTBED_PREFIX", "10.89.77")
    return Traffic(f"{prefix}.5:8080", "tiny", facts["proof_prompt"], facts["proof_answer"], key=key)


def log_of(lab: Lab, load: Traffic) -> RouterLog:
    """What the router itself reports of the time of ``load``."""
    lines = lab.on(ROUTER, "journalctl -u haproxy -o json --output-fields=MESSAGE --no-pager").splitlines()
    return router_log(lines, REPLICAS, load.began, load.ended)


def roll(
    lab: Lab,
    version: str,
    *arguments: str,
    playbook: str = UPGRADE,
    extra: Mapping[str, Any] | None = None,
    overlay: str | None = None,
    incident: Incident | None = None,
    key: str = "",
) -> Roll:
    """Run ``playbook`` to ``version`` under load of clients that send ``key``; ``incident`` is what happens meanwhile."""
    with traffic(lab, key) as load, concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(lab.play, playbook, *arguments, extra={**to(version), **(extra or {})}, overlay=overlay)
        if incident:
            eventually(incident.moment, lambda: running.done() or incident.is_due(lab), 300, 0.5)
            assert not running.done(), f"the roll was over before {incident.moment}"
            incident.happens(lab)
        play = running.result()
        time.sleep(5)  # and what serves afterwards
    rolled = Roll(play, load, log_of(lab, load))
    print(rolled.summary())
    return rolled


def nothing_lost(rolled: Roll) -> None:
    """Every request was answered, there were requests throughout, and a replica was in rotation at every moment."""
    assert rolled.load.failed == ()
    assert len(rolled.load.requests) >= rolled.play.seconds, "the load was not there all the time"
    assert rolled.log.lowest() >= 1, "the capacity floor was broken"


def kept_out(lab: Lab, host: str) -> dict[str, Any]:
    """The host is in quarantine, whose record this returns, and neither Ray nor an engine runs on it."""
    record = lab.record(host, "/var/lib/lockstep/quarantine.json")
    assert record, f"{host} is in no quarantine"
    units = lab.on(host, "systemctl is-active lockstep-ray lockstep-vllm || true").split()
    assert "active" not in units, f"{host} is in quarantine and runs Ray or an engine: {units}"
    return record


def admitted_rightly(lab: Lab, host: str) -> None:
    """What runs on the host, at this moment, has a stamp for the driver that is loaded."""
    ray, engine = lab.on(host, "systemctl is-active lockstep-ray lockstep-vllm || true").split()
    if "active" not in (ray, engine):
        return
    stamp = lab.record(host, "/var/lib/lockstep/stamp/host.json")
    assert stamp, f"Ray runs on {host} without a host stamp"
    assert stamp["fingerprint"]["driver"] == driver(lab, host), f"the host stamp of {host} is for another driver"
    if engine == "active":
        replica = lab.record(host, "/var/lib/lockstep/stamp/replica.json")
        assert replica, f"the engine runs on {host} without a replica stamp"
        assert replica["hosts"][host] == stamp["digest"], f"the replica stamp of {host} is for another fingerprint"


def verified(lab: Lab, host: str, version: str) -> None:
    """The host runs this driver, has a stamp for it, is in no quarantine and would come back to it."""
    assert driver(lab, host) == version
    stamp = lab.record(host, "/var/lib/lockstep/stamp/host.json")
    assert stamp
    assert stamp["fingerprint"]["driver"] == version
    assert lab.record(host, "/var/lib/lockstep/quarantine.json") is None
    memory = lab.record(host, "/var/lib/lockstep/driver.json")
    assert memory
    assert memory["change"] is None
    assert memory["verified"]["version"] == version
