"""What can go wrong in a roll: nobody is stranded, nothing is lost, and the next run finishes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from tests.e2e.lab import Lab, Play, eventually
from tests.e2e.rolls import (
    REPLICAS,
    UPGRADE,
    Incident,
    Roll,
    admitted_rightly,
    driver,
    kept_out,
    nothing_lost,
    other,
    roll,
    serving,
    to,
    verified,
)
from tests.unit.documented import documented

pytestmark = pytest.mark.long

QUARANTINE = "/var/lib/lockstep/quarantine.json"
LOCK = "/var/lib/lockstep/lock.json"


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault that a roll meets at replica_a, its canary.

    Attributes:
        name: of the row.
        names: what the end of the run's output has to name.
        left: how a1 is left: ``untouched``; ``restored``: admitted on the old driver; ``drained``: that too, but still
            drained in HAProxy; ``out``: in quarantine, for a controller that comes back; ``failed``: in quarantine until
            somebody asks for another try.
        before: arguments of testbed/testbed before the roll begins; ``NEW`` is the driver rolled to.
        during: a moment in the middle of the roll, and the arguments of testbed/testbed then.
        repair: arguments that undo it, where that is not clearing a1's faults.
        extra: the role's variables that shorten what takes long, or choose the path that the fault lies on.
        kept: the end of a file's name that is linked in the report as evidence.
    """

    name: str
    names: tuple[str, ...]
    left: Literal["untouched", "restored", "drained", "out", "failed"]
    before: str = ""
    during: tuple[Literal["drained", "installing", "loaded"], str] | None = None
    repair: str = "fault a1 --clear"
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kept: str = ""


FAULTS = (
    # before the first wave
    Fault("apt_lock_held", ("a1", "apt is in use"), "untouched", "fault a1 apt_lock_held"),
    Fault("disk_full", ("a1", "space"), "untouched", "fault a1 disk_full"),
    Fault(
        "router_unreachable",
        ("router1", "does not answer"),
        "untouched",
        "fault router1 port_blocked 22",
        repair="fault router1 --clear",
    ),
    # during the change
    Fault(
        "driver_install_fails",
        ("a1", "does not build for kernel", "evidence: a1:/var/lib/lockstep/evidence/"),
        "restored",
        "fault a1 driver_install_fails --when-driver NEW",
        kept="-build-make.log",
    ),
    Fault("dpkg_interrupted", ("a1", "dpkg"), "restored", "fault a1 dpkg_interrupted --when-driver NEW"),
    Fault(
        "module_busy",
        ("a1", "dcgm-exporter", "holds /dev/nvidia"),
        "restored",
        "fault a1 module_busy",
        extra={"nvidia_driver_load_policy": "reload"},
    ),
    Fault(
        "wrong_module_loads",
        ("a1", "550.54.15", "another module lies below"),
        "restored",
        "fault a1 wrong_module_loads 550.54.15 --when-driver NEW",
        kept="/modinfo.txt",
    ),
    # its gates, its engine
    Fault("nccl_wrong", ("a1", "nccl"), "restored", "fault a1 wrong_sum --when-driver NEW"),
    Fault(
        "engine_wont_start",
        ("a1", "no GPU", "evidence: a1:/var/lib/lockstep/engine"),
        "restored",
        "fault a1 engine_wont_start --when-driver NEW",
        kept="/engine.log",
    ),
    # and in its rollback
    Fault(
        "restore_fails",
        ("a1", "does not build for kernel", "could not be rolled back"),
        "failed",
        "fault a1 driver_install_fails",
    ),
    Fault(
        "router_lost",
        ("router1", "still drained in HAProxy; next run enables it"),
        "drained",
        during=("drained", "fault router1 port_blocked 22"),
        repair="fault router1 --clear",
    ),
    # nobody is left to roll it back
    Fault(
        "host_unreachable_mid_install",
        ("a1, stage apply: it became unreachable", "none of its hosts can be reached"),
        "out",
        "fault a1 driver_install_slow 20 --when-driver NEW",
        during=("installing", "cut a1"),
    ),
    Fault(
        "never_returns_from_reboot",
        ("a1", "reboot"),
        "out",
        "fault a1 never_returns_from_reboot",
        extra={"nvidia_driver_load_policy": "reboot"},
    ),
    Fault(
        "head_lost",
        ("a1, stage ", "it became unreachable", "none of its hosts can be reached"),
        "out",
        during=("loaded", "kill a1"),
        repair="start a1",
    ),
)


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case.name)
def test_a_fault_stops_the_roll_and_strands_nobody(pair: Lab, case: Fault) -> None:
    old = serving(pair, alike=False)["a1"]
    new = other(old)
    untouched = state(pair, "b1")
    try:
        inflict(pair, case.before, new)
        rolled = roll(pair, new, extra=case.extra, incident=incident_of(case, new))
        assert rolled.play.rc != 0, rolled.play.explained()
        nothing_lost(rolled)
        for name in (*case.names, "next:"):
            assert name.lower() in end_of_output(rolled.play).lower(), (
                f"the end of its output does not name {name!r}: {end_of_output(rolled.play)}"
            )
        if case.name == "host_unreachable_mid_install":
            documented("a wave that is lost as a whole", end_of_output(rolled.play), rolled.play.rc)
        linked = case.kept if case.kept.endswith(".txt") else f"{case.kept}.txt"  # kept as text, whatever it is called
        assert not case.kept or f'{linked}"' in rolled.report(), "the report has no link to the evidence"
        assert state(pair, "b1") == untouched, "the other replica was touched"
        left_as_it_should_be(pair, case, old, rolled)
    finally:
        inflict(pair, case.repair)
    if case.left in ("out", "failed"):
        eventually("a1 is up", lambda: is_up(pair, "a1"), 90)
        kind = kept_out(pair, "a1")["kind"]
        assert kind == {"out": "changing", "failed": "failed"}[case.left]

    playbook = "site.yml" if case.left == "failed" else UPGRADE
    finished = roll(pair, new, "--limit", "replica_a", playbook=playbook)
    assert finished.play.rc == 0, finished.play.explained()
    nothing_lost(finished)
    verified(pair, "a1", new)
    assert finished.log.rotation == set(REPLICAS)


# A package that has nothing to do with Lockstep: its script fails, or what it depends on is not to be had.
AGENT = "acme-agent"
BUILD_AGENT = f"""
set -e
rm -rf /tmp/{AGENT} && mkdir -p /tmp/{AGENT}/DEBIAN && cd /tmp/{AGENT}
printf 'Package: {AGENT}\\nVersion: 1.0\\nArchitecture: all\\nMaintainer: Acme <ops@example.com>\\n%sDescription: agent\\n' \
    "$DEPENDS" > DEBIAN/control
printf '#!/bin/sh\\nexit 1\\n' > DEBIAN/postinst && chmod 755 DEBIAN/postinst
dpkg-deb -b . /tmp/{AGENT}.deb
"""
DRIVER_IN_DPKG_LOG = "grep -cE ' (install|upgrade|remove) (nvidia|libnvidia|libcuda)' /var/log/dpkg.log"


@dataclasses.dataclass(frozen=True)
class Unrelated:
    """How that package is broken: what it depends on, how it is installed, what the message has to name.

    ``untouched``: apt refuses to do anything at all, so no driver package was changed, and none is to be.
    """

    depends: str
    verb: str
    names: tuple[str, ...]
    untouched: bool


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            Unrelated("", "--install", (f"{AGENT} (half-configured)", "sudo dpkg --configure -a"), untouched=False),
            id="its script fails",
        ),
        pytest.param(
            Unrelated(
                "Depends: nowhere-to-be-found\\n",
                "--unpack",
                (f"{AGENT} (unpacked)", "sudo apt-get install -f"),
                untouched=True,
            ),
            id="its dependencies are unmet",
        ),
    ],
)
def test_an_unrelated_package_that_breaks_in_mid_roll_costs_nobody_anything(pair: Lab, case: Unrelated) -> None:
    old = serving(pair, alike=False)["a1"]
    new = other(old)
    untouched, held = state(pair, "b1"), holds(pair, "a1")
    assert held
    pair.on("a1", f"DEPENDS=$'{case.depends}'\n{BUILD_AGENT}")
    changes = pair.on("a1", DRIVER_IN_DPKG_LOG, check=False)
    install = f"dpkg {case.verb} /tmp/{AGENT}.deb || true"
    breaks = Incident(
        "a1 is drained", lambda lab: lab.record("a1", QUARANTINE) is not None, lambda lab: lab.on("a1", install)
    )
    try:
        rolled = roll(pair, new, incident=breaks)
        assert rolled.play.rc != 0, rolled.play.explained()
        nothing_lost(rolled)
        for name in ("a1", f"on its way to driver {new}", *case.names, "Rolled back"):
            assert name in end_of_output(rolled.play), end_of_output(rolled.play)
        which = "its dependencies are unmet" if case.depends else "its script fails"
        documented(f"another package breaks after the drain: {which}", rolled.play.text, rolled.play.rc)
        verified(pair, "a1", old)
        assert holds(pair, "a1") == held
        assert rolled.log.rotation == set(REPLICAS)
        assert state(pair, "b1") == untouched, "the other replica was touched"
        if case.untouched:
            assert pair.on("a1", DRIVER_IN_DPKG_LOG, check=False) == changes, "packages were installed to undo nothing"
    finally:
        pair.on("a1", f"dpkg --purge --force-all {AGENT}; rm -rf /tmp/{AGENT}*", check=False)
    finished = roll(pair, new, "--limit", "replica_a")
    assert finished.play.rc == 0, finished.play.explained()
    verified(pair, "a1", new)


def test_a_package_that_breaks_on_a_later_wave_s_host_stops_the_roll_before_its_drain(pair: Lab) -> None:
    """b1 is looked at again when its wave begins: what broke since the plan refuses it, and it serves on untouched."""
    old = serving(pair)["a1"]
    new = other(old)
    pair.on("b1", f"DEPENDS=\n{BUILD_AGENT}")
    breaks = Incident(
        "a1 is drained",
        lambda lab: lab.record("a1", QUARANTINE) is not None,
        lambda lab: lab.on("b1", f"dpkg --install /tmp/{AGENT}.deb || true"),
    )
    engine = pair.record("b1", "/run/lockstep/engine.json")
    assert engine
    try:
        rolled = roll(pair, new, incident=breaks)
        assert rolled.play.rc != 0, rolled.play.explained()
        nothing_lost(rolled)
        verified(pair, "a1", new)
        verified(pair, "b1", old)
        now = pair.record("b1", "/run/lockstep/engine.json")
        assert now
        assert now["pid"] == engine["pid"], "the engine of the later wave was restarted"
        assert rolled.log.rotation == set(REPLICAS)
        documented("another package breaks before a later wave", rolled.play.text, rolled.play.rc)
        command = re.search(
            r"Next: .*ansible .*b1 -b -m ansible\.builtin\.command -a '([^']+)'", end_of_output(rolled.play)
        )
        assert command, end_of_output(rolled.play)
    finally:
        pair.on("b1", f"dpkg --purge --force-all {AGENT}; rm -rf /tmp/{AGENT}*", check=False)
    finished = roll(pair, new)
    assert finished.play.rc == 0, finished.play.explained()
    verified(pair, "b1", new)


def test_holds_that_a_killed_controller_left_off_are_back_with_the_next_run(pair: Lab) -> None:
    """apt drops the hold of what it changes. Killed right then: the controller, and what it runs on the host; apt goes on."""
    old = serving(pair, alike=False)["a1"]
    new = other(old)
    held = holds(pair, "a1")
    module_of_apt = "ps -o ppid= -p $(pgrep -o -f '[a]pt-get .*install ')"
    pair.testbed("fault", "a1", "driver_install_slow", "20", "--when-driver", new)
    try:
        with pair.controller(UPGRADE, to(new)) as controller:
            installs = "pgrep -f '[d]kms.*postinst' || true"
            eventually("a1 installs", lambda: controller.ended or bool(pair.on("a1", installs)), 300, 0.5)
            assert not controller.ended, controller.text()[-4000:]
            controller.kill()
            pair.on("a1", f"kill -9 $({module_of_apt})")
        eventually("apt is done", lambda: not pair.on("a1", "pgrep -x apt-get || true"), 120)
    finally:
        pair.testbed("fault", "a1", "--clear")
    assert holds(pair, "a1") != held, "apt kept the hold: this test tries nothing"
    assert kept_out(pair, "a1")["kind"] == "changing"
    gate = pair.on(
        "a1",
        "cd / && PYTHONPATH=/opt/lockstep/lib python3 -c 'import json; from lockstep.gates import driver; "
        'print(json.dumps(driver.check(driver.Expected(None, 1))["gate"]["measured"]["findings"]))\'',
    )
    assert "not_held" in gate
    finished = roll(pair, new)
    assert finished.play.rc == 0, finished.play.explained()
    nothing_lost(finished)
    verified(pair, "a1", new)
    assert len(holds(pair, "a1")) == len(held)


def test_a_replica_that_is_left_out_fails_the_roll_once_the_others_are_done(pair: Lab) -> None:
    old = serving(pair)["a1"]
    new = other(old)
    cordon = pair.ask("quarantine", "b1", reason="DIMM 3", owner="ada@ops", run="by hand", kind="operator")
    assert cordon.rc == 0, cordon.text
    command = (
        f"playbooks/upgrade_driver.yml -e nvidia_driver_version={new} -e rollout_include_quarantined=true "
        "--limit replica_b"
    )
    rolled = roll(pair, new)
    assert rolled.play.rc != 0, rolled.play.explained()
    nothing_lost(rolled)
    verified(pair, "a1", new)
    assert driver(pair, "b1") == old
    (message,) = rolled.play.failures()
    assert "Asked for and not done:\n  - replica_b was left out: quarantined (b1: " in message
    assert "DIMM 3" in message
    assert message.endswith(command)
    documented("a replica that is left out", message, rolled.play.rc)
    again = pair.play(UPGRADE, extra=to(new))
    assert again.rc != 0, "nothing is left to be rolled, and that was taken for success"
    # Each run of these tests has a file of extra variables of its own.
    (repeated,) = again.failures()
    assert re.sub(r"@/tmp/\S+", "@", repeated) == re.sub(r"@/tmp/\S+", "@", message)
    taken = roll(pair, new, "--limit", "replica_b", extra={"rollout_include_quarantined": True})
    assert taken.play.rc == 0, taken.play.explained()
    verified(pair, "b1", new)


def holds(lab: Lab, host: str) -> list[str]:
    return sorted(lab.on(host, "apt-mark showhold").split())


def inflict(lab: Lab, command: str, new: str = "") -> None:
    if command:
        lab.testbed(*command.replace("NEW", new).split())


def incident_of(case: Fault, new: str) -> Incident | None:
    if case.during is None:
        return None
    when, command = case.during
    moments = {
        "drained": lambda lab: lab.record("a1", QUARANTINE) is not None,
        "installing": lambda lab: bool(lab.on("a1", "pgrep -f '[d]kms.*postinst' || true")),
        "loaded": lambda lab: driver(lab, "a1") == new,
    }
    return Incident(f"a1 is {when}", moments[when], lambda lab: inflict(lab, command, new))


def left_as_it_should_be(lab: Lab, case: Fault, old: str, rolled: Roll) -> None:
    if case.left in ("untouched", "restored"):
        verified(lab, "a1", old)
        assert rolled.log.rotation == set(REPLICAS)
    else:
        assert rolled.log.rotation == {"replica_b"}
    if case.left == "drained":
        assert driver(lab, "a1") == old
        assert lab.record("a1", QUARANTINE) is None
        admitted_rightly(lab, "a1")
    if case.left == "untouched":
        assert rolled.log.changes == ()
    assert lab.record("b1", LOCK) is None, "the run left its lock behind"


def is_up(lab: Lab, host: str) -> bool:
    """Whether it has booted, asked over ssh: a host that has just come back may not be reached yet."""
    answer = lab.testbed("ssh", host, "systemctl", "is-system-running", check=False)
    return answer.strip() in ("running", "degraded")


def state(lab: Lab, host: str) -> list[str]:
    """The host's state, less the lock, which a run leaves behind that has nobody left to release it."""
    return [line for line in lab.snapshot([host])[host] if "/var/lib/lockstep/lock" not in line]


def end_of_output(play: Play) -> str:
    """What a person who comes back to the screen finds on it, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m|\r", "", play.text)[-4000:]
