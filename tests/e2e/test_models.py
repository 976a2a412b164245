"""A model that every host fetches from a hub with a token, or has staged from it. Begins and ends with replica_a serving."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.lab import ROOT, Lab
from tests.e2e.test_site import HOSTS, answers

pytestmark = pytest.mark.long

TOKEN = "hf_" + "0123456789abcdef" * 2
CACHE = "/srv/cache/models"
UNIT = "lockstep-stand-in-hub"
WANTED = {
    "vllm_server_model": "owner/tiny",
    "vllm_server_hub_token": TOKEN,
    "vllm_server_cache": CACHE,
    "ray_node_environment": {"HF_ENDPOINT": "http://mirror.testbed.test:8900"},
}


@pytest.fixture
def hub(lab: Lab) -> Iterator[None]:
    """A private repository with the testbed's model, on the mirror."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(ROOT / "testbed/.cache/models/tiny", "tiny")
        archive.add(ROOT / "testbed/stand_ins/hub.py", "hub.py")
    text = base64.b64encode(packed.getvalue()).decode()
    lab.on("mirror", "mkdir -p /srv/hub && rm -f /srv/hub/packed")
    for start in range(0, len(text), 100_000):  # an argument of a command has 128 KiB at most
        lab.on("mirror", f"printf %s {text[start : start + 100_000]} >> /srv/hub/packed")
    lab.on("mirror", "base64 -d /srv/hub/packed | tar -xz -C /srv/hub")
    lab.on("mirror", f"systemd-run --unit {UNIT} python3 /srv/hub/hub.py 8900 /srv/hub/tiny owner/tiny {TOKEN}")
    yield
    lab.on("mirror", f"systemctl stop {UNIT}", check=False)


def test_a_model_of_a_hub_is_fetched_with_a_token_to_its_own_disk(lab: Lab, hub: None) -> None:
    first = lab.play()
    assert first.rc == 0, first.explained()
    try:
        play = lab.play(extra=WANTED)
        assert play.rc == 0, play.explained()
        assert answers(lab)
        for host in HOSTS:
            assert lab.on(host, f"ls {CACHE}/hub/models--owner--tiny/snapshots/*/model.safetensors")
            assert lab.on(host, f"stat -c '%a %U' {CACHE}") == "750 lockstep"
            # The token is a credential of both units, and in nothing that others can read.
            assert lab.on(host, "stat -c '%a %U' /etc/lockstep/hub-token") == "400 root"
            found = lab.on(
                host, f"grep -rl {TOKEN} /etc /var/log /var/lib/lockstep /run/systemd /srv/cache 2>/dev/null || true"
            )
            assert found.splitlines() == ["/etc/lockstep/hub-token"], found
            assert TOKEN not in lab.on(
                host, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'", check=False
            )
            assert TOKEN not in lab.on(host, "journalctl -b --no-pager")
        assert TOKEN not in play.text
        again = lab.play(extra=WANTED)
        assert again.rc == 0, again.explained()
        assert again.changed() == {}
    finally:
        back = lab.play()
        assert back.rc == 0, back.explained()
    assert not lab.on(HOSTS[0], "ls /etc/lockstep/hub-token 2>/dev/null", check=False)


FOLDER = "/srv/lockstep/models"
STAGED: dict[str, Any] = {
    "model_source": "hub:owner/tiny",
    "model_environment": {"HF_ENDPOINT": "http://mirror.testbed.test:8900"},
    "vllm_server_model": f"{FOLDER}/tiny",
    "vllm_server_hub_token": TOKEN,
}
STAGE, VERIFY, PRUNE = "playbooks/stage_model.yml", "playbooks/verify_model.yml", "playbooks/prune_models.yml"
WEIGHTS = f"{FOLDER}/tiny/model.safetensors"


def digest(lab: Lab, host: str, path: str = WEIGHTS) -> str:
    return lab.on(host, f"sha256sum {path}").split()[0]


@pytest.fixture
def nothing_staged(lab: Lab, hub: None) -> Iterator[None]:
    first = lab.play()
    assert first.rc == 0, first.explained()
    yield
    back = lab.play()
    assert back.rc == 0, back.explained()
    for host in HOSTS:
        lab.on(host, f"rm -rf {FOLDER}")
    lab.on("mirror", "rm -f /srv/hub/tiny/.faults.json", check=False)


def test_a_model_is_staged_over_two_hosts_and_a_file_damaged_on_the_way_is_found(
    lab: Lab, nothing_staged: None
) -> None:
    """Under what serves."""
    checked = lab.play(STAGE, "--check", extra=STAGED)
    assert checked.rc == 0, checked.explained()
    assert not lab.on(HOSTS[0], f"ls {FOLDER} 2>/dev/null", check=False)

    # Two answers spoilt: one host gets a damaged file and fetches it again, or gets it twice and says so.
    lab.on("mirror", f"echo '{json.dumps({'damage': {'model.safetensors': 2}})}' > /srv/hub/tiny/.faults.json")
    play = lab.play(STAGE, "--limit", HOSTS[0], extra=STAGED)
    assert play.rc != 0, play.explained()
    (said,) = play.failures()
    assert f"{HOSTS[0]}: model.safetensors is damaged" in said
    assert not lab.on(HOSTS[0], f"ls {FOLDER}/tiny 2>/dev/null", check=False), "what is damaged is not shown"

    play = lab.play(STAGE, extra=STAGED)
    assert play.rc == 0, play.explained()
    assert len({digest(lab, host) for host in HOSTS}) == 1
    assert TOKEN not in play.text
    for host in HOSTS:
        assert lab.on(host, f"stat -c '%U %a' {WEIGHTS}") == "lockstep 440"
        assert not lab.on(host, "ls /run/lockstep-model-request")
        assert TOKEN not in lab.on(host, "journalctl -b --no-pager")
    assert answers(lab)
    again = lab.play(STAGE, extra=STAGED)
    assert again.changed() == {}, again.explained()

    # A disk that lies: the second host's copy has another byte, of the same length.
    lab.on(HOSTS[1], f"chmod u+w {WEIGHTS} && printf '?' | dd of={WEIGHTS} bs=1 seek=9000 conv=notrunc status=none")
    play = lab.play(VERIFY, extra=STAGED)
    assert play.rc != 0, play.explained()
    (said,) = play.failures()
    assert f"{HOSTS[1]}: {WEIGHTS} is damaged" in said
    assert f"stage_model.yml --limit {HOSTS[1]}" in said
    play = lab.play(STAGE, "--limit", HOSTS[1], extra=STAGED)
    assert play.rc == 0, play.explained()
    assert len({digest(lab, host) for host in HOSTS}) == 1
    assert lab.play(VERIFY, extra=STAGED).rc == 0
    assert answers(lab)


def test_staging_goes_on_where_it_was_ended(lab: Lab, nothing_staged: None) -> None:
    host = HOSTS[0]
    slowly = {"bytes_per_second": 4000}  # 100 s for the weights
    lab.on("mirror", f"echo '{json.dumps(slowly)}' > /srv/hub/tiny/.faults.json")
    play = lab.play(STAGE, "--limit", host, extra={**STAGED, "model_deadline": 20})
    assert play.rc != 0, play.explained()
    assert f"{host}: " in play.failures()[0]
    lab.on(host, "systemctl kill --signal=KILL lockstep-model.service", check=False)
    lab.on("mirror", "rm /srv/hub/tiny/.faults.json")
    play = lab.play(STAGE, "--limit", host, extra=STAGED)
    assert play.rc == 0, play.explained()
    assert lab.on(host, f"ls {FOLDER}/.staging") == ""
    answered = lab.on("mirror", f"journalctl --unit {UNIT} --no-pager --grep 'GET .*/model.safetensors'")
    assert '" 206 ' in answered, "the rest was asked for, not the whole"


def test_a_model_of_the_controller_is_sent_and_verified(lab: Lab, nothing_staged: None) -> None:
    mine = ROOT / "testbed/.cache/models/tiny"
    play = lab.play(STAGE, extra={**STAGED, "model_source": f"controller:{mine}"})
    assert play.rc == 0, play.explained()
    assert len({digest(lab, host) for host in HOSTS}) == 1
    assert lab.play(VERIFY, extra=STAGED).rc == 0


def test_a_planted_link_leads_root_nowhere(lab: Lab, nothing_staged: None) -> None:
    """The user lockstep puts a link to a file of root's in place of a model's configuration, and one in place of the folder."""
    play = lab.play(STAGE, extra=STAGED)
    assert play.rc == 0, play.explained()
    host = HOSTS[0]
    lab.on(host, f"install -m 600 /dev/null /root/secret && echo '{{\"a\": 1}}' > /root/secret && cd {FOLDER}/tiny && "
                 "setpriv --reuid lockstep --regid lockstep --init-groups ln -sf /root/secret config.json")  # fmt: skip
    secret = digest(lab, host, "/root/secret")
    play = lab.play("playbooks/preflight.yml", extra=STAGED)
    assert play.rc != 0, play.explained()
    assert secret not in play.text
    assert secret not in json.dumps(list(play.events))
    play = lab.play(VERIFY, extra=STAGED)
    assert f"{FOLDER}/tiny/config.json is a link" in play.failures()[0]
    lab.on(host, f"rm -rf {FOLDER} && ln -s /etc {FOLDER}")
    play = lab.play(STAGE, "--limit", host, extra=STAGED)
    assert "is a link or no folder" in play.failures()[0]
    lab.on(host, f"rm {FOLDER} /root/secret")


def test_models_that_nobody_wants_are_removed(lab: Lab, nothing_staged: None) -> None:
    other = {**STAGED, "vllm_server_model": f"{FOLDER}/other"}
    for wanted in (STAGED, other):
        play = lab.play(STAGE, extra=wanted)
        assert play.rc == 0, play.explained()
    shown = lab.play(PRUNE, "--check", extra=STAGED)
    assert shown.rc == 0, shown.explained()
    assert lab.on(HOSTS[1], f"ls {FOLDER}").split() == ["other", "tiny"]
    play = lab.play(PRUNE, extra=STAGED)
    assert play.rc == 0, play.explained()
    for host in HOSTS:
        assert lab.on(host, f"ls {FOLDER}").split() == ["tiny"]


def test_site_stages_what_it_then_serves(lab: Lab, nothing_staged: None) -> None:
    play = lab.play(extra=STAGED)
    assert play.rc == 0, play.explained()
    assert answers(lab)
    record = lab.record(HOSTS[0], "/etc/lockstep/engine.json")
    assert record is not None
    assert record["model"] == f"{FOLDER}/tiny"
    again = lab.play(extra=STAGED)
    assert again.rc == 0, again.explained()
    assert again.changed() == {}
    # What serves is kept, whatever the inventory wants by now.
    pruned = lab.play(PRUNE)
    assert pruned.rc == 0, pruned.explained()
    assert lab.on(HOSTS[0], f"ls {FOLDER}").split() == ["tiny"]
