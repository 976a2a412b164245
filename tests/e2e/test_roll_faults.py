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
    verified,
)

pytestmark = pytest.mark.long

QUARANTINE = "/var/lib/lockstep/quarantine.json"


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
    Fault("apt_lock_held", ("a1", "locks were not free"), "untouched", "fault a1 apt_lock_held"),
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
        ("a1", "dkms", "evidence: a1:/var/lib/lockstep/evidence/"),
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
    Fault("restore_fails", ("a1", "dkms", "could not be rolled back"), "failed", "fault a1 driver_install_fails"),
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
        ("a1", "unreachable"),
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
    Fault("head_lost", ("a1", "unreachable"), "out", during=("loaded", "kill a1"), repair="start a1"),
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
        linked = case.kept if case.kept.endswith(".txt") else f"{case.kept}.txt"  # kept as text, whatever it is called
        assert f'{linked}"' in rolled.report() or not case.kept, "the report has no link to the evidence"
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


def is_up(lab: Lab, host: str) -> bool:
    """Whether it has booted, asked over ssh: a host that has just come back may not be reached yet."""
    answer = lab.testbed("ssh", host, "systemctl", "is-system-running", check=False)
    return answer.strip() in ("running", "degraded")


def state(lab: Lab, host: str) -> list[str]:
    """The host's state, less the lock, which a run leaves behind that has nobody left to release it."""
    return [line for line in lab.snapshot([host])[host] if "/var/lib/lockstep/lock.json" not in line]


def end_of_output(play: Play) -> str:
    """What a person who comes back to the screen finds on it, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m|\r", "", play.text)[-4000:]
