"""Waves that change no driver and fail: the canary serves again as before, by itself, and the run says what was taken back.

Each change is one that an operator makes in an inventory and that no plan can refuse; the load goes on meanwhile.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lab import ROOT, Lab, eventually
from tests.e2e.rolls import REPLICAS, Incident, Roll, declaring, nothing_lost, roll, serving, verified
from tests.unit.documented import documented

pytestmark = pytest.mark.long

ENGINE = "/etc/lockstep/engine.json"
LOCK = ROOT / "roles/serving_runtime/files/locks/cpu.txt"
BAD_LOCK = "LOCK, but for a version that nobody has"
# What fails here does so on purpose, and need not be tried six times.
ONCE = {"vllm_server_restarts": {"limit": 1, "backoff": 1, "longest": 1, "stable_seconds": 120}}
ARGUMENTS = {"max_model_len": 256, "max_num_seqs": 8}


def change_begun(lab: Lab) -> bool:
    return '"max_num_seqs": 7' in lab.on("a1", f"cat {ENGINE}")


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of the inventory at which the canary fails.

    Attributes:
        name: of the row.
        extra: the variables that are changed.
        stage: the stage of the wave that fails, as a pattern.
        taken_back: what the verdict and the report name.
        incident: what happens in the middle, for a change that is bad only then.
    """

    name: str
    extra: Mapping[str, Any]
    stage: str
    taken_back: tuple[str, ...]
    incident: Incident | None = None


CHANGES = (
    Change(
        "a lock that cannot be built",
        {"serving_runtime_lock": BAD_LOCK},
        "apply",
        ("serving environment (serving_runtime.lock)",),
    ),
    Change(
        "a serving environment that does not start",
        {
            **ONCE,
            "serving_runtime_extra_requirements": ["vllm==0.32.0+cpu --hash=sha256:{{ testbed_facts.vllm_sha256 }}"],
        },
        "(host_gates|replica_gates|start_engine)",  # the gates run on it too
        ("serving environment", "vLLM (restarts."),
    ),
    Change(
        "an argument that kills the engine",
        {**ONCE, "vllm_server_args": {**ARGUMENTS, "no_such_argument": 1}},
        "start_engine",
        ("vLLM (args.no_such_argument",),
    ),
    Change(
        "a bake that fails",
        {
            "vllm_server_args": {**ARGUMENTS, "max_num_seqs": 7},
            "rollout_bake_seconds": 60,
            "rollout_bake_latency_factor": 3,
        },
        "bake",
        ("vLLM (args.max_num_seqs)",),
        Incident("a1 is configured anew", change_begun, lambda lab: lab.testbed("fault", "a1", "engine_slow", "400")),
    ),
)


def settings(lab: Lab, host: str) -> dict[str, str]:
    """What a wave may change on a host: checksums of files, manifests, the serving environment, units at boot."""
    lines = lab.on(
        host,
        "sha256sum /etc/lockstep/{engine.json,ray.env,ray.json,ray-token} /etc/systemd/system/lockstep-*; "
        "sha256sum /opt/lockstep/share/serving_runtime.lock /opt/lockstep/bin/uv; "
        "sha256sum /var/lib/lockstep/manifest/{ray_node,vllm_server,serving_runtime}.json; "
        "stat -c '%a:%U %n' /etc/lockstep/*; echo $(readlink /opt/lockstep/runtime/current) current; "
        "systemctl is-enabled lockstep-ray lockstep-vllm lockstep-filter lockstep-hoststatus.socket | paste -sd' '",
    ).splitlines()
    return {line.split(" ", 1)[1]: line.split(" ", 1)[0] for line in lines}


def serves_as_before(lab: Lab, rolled: Roll, change: Change, before: Mapping[str, str], version: str) -> None:
    assert rolled.play.rc != 0, rolled.play.explained()
    nothing_lost(rolled)
    assert settings(lab, "a1") == before
    assert rolled.log.rotation == set(REPLICAS), "a replica is not in rotation"
    engine = lab.record("a1", "/run/lockstep/engine.json")
    assert engine
    assert engine["phase"] == "serving"
    verified(lab, "a1", version)
    assert lab.record("a1", "/var/lib/lockstep/previous/record.json") is None, "the change was not closed"
    assert re.search(rf"a1, stage {change.stage}: ", rolled.play.text), rolled.play.explained()
    for fragment in (
        "Wave 1 of 2 failed",
        "Rolled back; it passed its gates again and serves as before.",
        "site.yml --limit replica_a",
        *change.taken_back,
    ):
        assert fragment in rolled.play.text, f"{fragment!r} is not said\n{rolled.play.explained()}"
    assert "rolled back: " in rolled.report()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name.replace(" ", "_"))
def test_a_change_of_settings_that_fails_is_rolled_back(pair: Lab, change: Change, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text(LOCK.read_text().replace("\nvllm-cpu==0.32.0 ", "\nvllm-cpu==0.32.99 "))
    assert bad.read_text() != LOCK.read_text()
    extra = {name: str(bad) if value == BAD_LOCK else value for name, value in change.extra.items()}
    versions = serving(pair)
    before = {host: settings(pair, host) for host in REPLICAS.values()}
    engine = pair.record("b1", "/run/lockstep/engine.json")
    try:
        rolled = roll(
            pair,
            versions["a1"],
            playbook="site.yml",
            extra=extra,
            incident=change.incident,
        )
        serves_as_before(pair, rolled, change, before["a1"], versions["a1"])
        documented(change.name, rolled.play.text, rolled.play.rc)
    finally:
        pair.testbed("fault", "a1", "--clear")
    assert settings(pair, "b1") == before["b1"], "the other replica was changed"
    now = pair.record("b1", "/run/lockstep/engine.json")
    assert engine
    assert now
    assert now["pid"] == engine["pid"], "the engine of the other replica was restarted"
    play = pair.play(overlay=declaring(versions))
    assert play.rc == 0, play.explained()
    assert play.changed() == {}, "the inventory as it was is not what the canary runs"


def test_a_controller_that_dies_in_the_change_leaves_what_served_to_go_back_to(pair: Lab) -> None:
    """Killed once a1 is half changed; then again, in the rollback of its rerun; the third run rolls back all the same."""
    versions = serving(pair)
    before = settings(pair, "a1")
    extra = {"nvidia_driver_version": versions["a1"], **ONCE, "vllm_server_args": {**ARGUMENTS, "no_such_argument": 1}}
    with pair.controller("site.yml", extra) as controller:
        eventually("a1 is half changed", lambda: "no_such_argument" in pair.on("a1", f"cat {ENGINE}"), 300, 0.3)
        controller.kill()
    kept = pair.record("a1", "/var/lib/lockstep/previous/record.json")
    assert kept
    with pair.controller("site.yml", extra) as controller:
        eventually("a1 is taken back", lambda: settings(pair, "a1") == before, 600, 0.3)
        controller.kill()
    again = pair.record("a1", "/var/lib/lockstep/previous/record.json")
    assert again == kept, "what served was overwritten"
    rolled = pair.play(extra=extra)
    assert rolled.rc != 0
    assert settings(pair, "a1") == before
    verified(pair, "a1", versions["a1"])
    assert pair.record("a1", "/var/lib/lockstep/previous/record.json") is None
    play = pair.play(overlay=declaring(versions))
    assert play.rc == 0, play.explained()
    assert play.changed() == {}, play.explained()
