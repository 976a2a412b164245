"""A model that every host fetches from a hub with a token, to a disk of its own. Begins and ends with replica_a serving."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterator

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
