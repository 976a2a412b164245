"""Another model by a roll, under load: both replicas get it one after the other; one that cannot serve is rolled back.

Begins and ends with both replicas serving what the inventory declares.
"""

from __future__ import annotations

import re

import pytest

from tests.e2e.lab import Lab
from tests.e2e.rolls import HEADS, nothing_lost, roll, serving

pytestmark = pytest.mark.long

PLAYBOOK = "playbooks/upgrade_model.yml"
NEXT, BROKEN = "/srv/next/tiny", "/srv/broken/tiny"
# What fails here does so on purpose, and need not be tried six times.
ONCE = {"vllm_server_restarts": {"limit": 1, "backoff": 1, "longest": 1, "stable_seconds": 120}}


def model_of(lab: Lab, host: str) -> str:
    record = lab.record(host, "/etc/lockstep/engine.json")
    assert record
    return str(record["model"])


def copied(lab: Lab, folder: str) -> None:
    for host in HEADS:
        lab.on(
            host, f"mkdir -p {folder.rpartition('/')[0]} && cp -r /srv/models/tiny {folder} && chmod -R a+rX {folder}"
        )


def test_another_model_reaches_every_replica_and_loses_nothing(pair: Lab) -> None:
    version = serving(pair)["a1"]
    copied(pair, NEXT)
    rolled = roll(pair, version, playbook=PLAYBOOK, extra={"vllm_server_model": NEXT})
    assert rolled.play.rc == 0, rolled.play.explained()
    nothing_lost(rolled)
    assert [model_of(pair, host) for host in HEADS] == [NEXT, NEXT]
    again = pair.play(PLAYBOOK, extra={"nvidia_driver_version": version, "vllm_server_model": NEXT})
    assert again.rc == 0, again.explained()
    assert again.changed() == {}


def test_a_model_that_cannot_serve_is_taken_back(pair: Lab) -> None:
    version = serving(pair)["a1"]
    copied(pair, BROKEN)
    for host in HEADS:  # of the right length, so that no plan sees it; all its weights are zero
        lab_script = f"cd {BROKEN} && python3 - <<'END'\n" + (
            "import json, pathlib, struct\n"
            "path = pathlib.Path('model.safetensors')\n"
            "data = path.read_bytes()\n"
            "start = 8 + struct.unpack('<Q', data[:8])[0]\n"
            "path.write_bytes(data[:start] + bytes(len(data) - start))\n"
            "END"
        )
        pair.on(host, lab_script)
    before = model_of(pair, "a1")
    rolled = roll(pair, version, playbook=PLAYBOOK, extra={**ONCE, "vllm_server_model": BROKEN})
    assert rolled.play.rc != 0, rolled.play.explained()
    nothing_lost(rolled)
    assert [model_of(pair, host) for host in HEADS] == [before, before]
    assert "Rolled back; it passed its gates again and serves as before." in rolled.play.text, rolled.play.explained()
    assert re.search(r"vLLM \([^)]*model", rolled.play.text), rolled.play.explained()


def test_a_roll_stages_its_model_before_it_drains(pair: Lab) -> None:
    """From a folder of each host, as from NFS, with the page cache warmed before each drain."""
    version = serving(pair)["a1"]
    staged = {"model_source": "/srv/models/tiny", "vllm_server_model": "/srv/lockstep/models/next"}
    rolled = roll(pair, version, playbook=PLAYBOOK, extra=staged)
    assert rolled.play.rc == 0, rolled.play.explained()
    nothing_lost(rolled)
    assert [model_of(pair, host) for host in HEADS] == [staged["vllm_server_model"]] * 2
    order = [str(event["event_data"].get("task")) for event in rolled.play.events if event["event"] == "runner_on_ok"]
    assert order.index("Stage model") < order.index("Read model into the page cache") < order.index("Drain vLLM")
