"""API key and Ray token are rotated under load: clients send the old key in the first roll, the new one in the second; no 401.

Begins and ends with both replicas serving what the inventory declares, without a key.
"""

from __future__ import annotations

import re

import pytest

from tests.e2e.lab import Lab
from tests.e2e.rolls import HEADS, REPLICAS, Roll, nothing_lost, roll, serving, traffic

pytestmark = pytest.mark.long

SITE = "site.yml"
FIRST, SECOND = "first-key-of-this-test-0123456789ab", "second-key-of-this-test-0123456789a"
TOKEN = "another-token-of-this-test-0123456789"


def token_of(lab: Lab, host: str) -> str:
    return lab.on(host, "cat /etc/lockstep/ray-token")


def keys_of(lab: Lab, host: str) -> str:
    """What the engine runs with, and what everybody on the host can see of it."""
    return lab.on(
        host,
        "stat -c '%a %U' /etc/lockstep/vllm-api-key* | sort -u; ls /etc/lockstep | grep -c vllm-api-keys; "
        "cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
        check=False,
    )


def answered(lab: Lab, key: str | None) -> set[int]:
    """Statuses that one request straight to each head is answered with."""
    statuses = set()
    header = f"-H 'Authorization: Bearer {key}'" if key else ""
    for host in HEADS:
        command = f"curl -s -o /dev/null -w '%{{http_code}}' {header} http://{lab.address(host)}:8000/v1/models"
        statuses.add(int(lab.on(host, command)))
    return statuses


def no_401(rolled: Roll) -> None:
    nothing_lost(rolled)
    assert {request.status for request in rolled.load.requests} == {200}
    assert {served.status for served in rolled.log.served} == {200}


def test_key_and_token_are_rotated_and_no_client_meets_a_401(pair: Lab) -> None:
    version = serving(pair)["a1"]
    with_first = {"vllm_server_api_key": FIRST}
    begun = pair.play(SITE, extra={**with_first, "nvidia_driver_version": version})
    assert begun.rc == 0, begun.explained()
    assert (answered(pair, FIRST), answered(pair, SECOND), answered(pair, None)) == ({200}, {401}, {401})
    tokens = {host: token_of(pair, host) for host in HEADS}

    # Both are accepted; Ray gets another token in the same waves. Clients send the first key throughout.
    both = {"vllm_server_api_key": SECOND, "vllm_server_api_keys_previous": [FIRST], "ray_node_token": TOKEN}
    rolled = roll(pair, version, playbook=SITE, extra=both, key=FIRST)
    assert rolled.play.rc == 0, rolled.play.explained()
    no_401(rolled)
    assert "answered 401" not in rolled.play.text
    assert (answered(pair, FIRST), answered(pair, SECOND)) == ({200}, {200})
    for host in HEADS:
        assert token_of(pair, host) != tokens[host]
        seen = keys_of(pair, host)
        assert seen.startswith("400 root\n1\n")
        assert FIRST not in seen
        assert SECOND not in seen

    # Clients have moved; the first key goes.
    last = {"vllm_server_api_key": SECOND, "ray_node_token": TOKEN}
    rolled = roll(pair, version, playbook=SITE, extra=last, key=SECOND)
    assert rolled.play.rc == 0, rolled.play.explained()
    no_401(rolled)
    assert (answered(pair, FIRST), answered(pair, SECOND)) == ({401}, {200})
    assert FIRST not in rolled.play.text
    assert SECOND not in rolled.play.text


def test_a_key_that_clients_would_lose_is_reported_before(pair: Lab) -> None:
    checked = pair.play("playbooks/preflight.yml", extra={"vllm_server_api_key": FIRST})
    assert checked.rc == 0, checked.explained()
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", checked.text).split())  # Ansible breaks its lines
    assert all(f"answered 401 once {replica} is changed" in text for replica in REPLICAS), checked.explained()


def test_the_inventory_s_own_settings_come_back(pair: Lab) -> None:
    serving(pair)
    assert answered(pair, None) == {200}
    with traffic(pair) as load:
        pass
    assert load.failed == ()
