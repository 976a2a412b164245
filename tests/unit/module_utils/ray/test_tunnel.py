"""The WireGuard tunnel of a replica: addresses, configuration, and what differs from it. The outputs are those of real programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import host_record, records
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import tunnel, tunnel_live
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.tunnel import TunnelError

FIXTURES = Path(__file__).parents[2] / "fixtures/tunnel"
SHOWN = (
    FIXTURES / "wg-show-allowed-ips.txt"
).read_text()  # wireguard-tools 1.0.20210914 over wireguard-go 0.0.20220316
ADDRESS = (FIXTURES / "ip-address.json").read_text()
# wireguard-go again, of a host with two peers, of which one answers.
THREE = (FIXTURES / "wg-show-allowed-ips-of-three.txt").read_text()
LATEST = (FIXTURES / "wg-show-latest-handshakes.txt").read_text()
SHOOK_AT = 1795800682
INSIDE = tunnel.network("198.18.0.0/24")
KEY = SHOWN.split()[0]
HEAD: dict[str, Any] = {
    "host": "a1", "replica": "a", "ray_role": "head", "address": "10.0.0.11", "interface": "eth0", "gpus": 8, "gpu_model": None,
    "zone": None, "head": {"host": "a1", "address": "10.0.0.11"}, "peers": {"a1": "10.0.0.11", "a2": "10.0.0.12"},
}  # fmt: skip
MADE = tunnel.record(HEAD, INSIDE, 51820)
TEXT = tunnel.configuration(HEAD, MADE, INSIDE, {"a2": KEY})


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (["a1"], {"a1": "198.18.0.1"}),
        (["a1", "a2"], {"a1": "198.18.0.1", "a2": "198.18.0.2"}),
        (["0first", "a1", "z"], {"a1": "198.18.0.1", "0first": "198.18.0.2", "z": "198.18.0.3"}),
    ],
)
def test_every_host_has_an_address_and_the_head_the_first(hosts: list[str], expected: dict[str, str]) -> None:
    assert tunnel.addresses(INSIDE, "a1", hosts) == expected
    assert tunnel.addresses(INSIDE, "a1", hosts[::-1]) == expected


@pytest.mark.parametrize("text", ["198.18.0.0/24/1", "198.18.0.1/24", "fd00::/64", "", None])
def test_what_is_no_network_is_refused(text: object) -> None:
    with pytest.raises(TunnelError, match="ray_node_encryption_network: "):
        tunnel.network(text)


def test_a_network_that_is_too_small_is_refused() -> None:
    with pytest.raises(TunnelError, match=r"198\.18\.0\.0/30 has 2 addresses, the replica 3 hosts"):
        tunnel.addresses(tunnel.network("198.18.0.0/30"), "a", ["a", "b", "c"])


def test_the_configuration_has_the_peers_and_no_secret() -> None:
    assert TEXT.splitlines() == [
        "# Written by Lockstep (role ray_node).",
        "[Interface]",
        "Address = 198.18.0.1/24",
        "ListenPort = 51820",
        "PostUp = wg set %i private-key /etc/wireguard/%i.key",
        "",
        "# a2",
        "[Peer]",
        f"PublicKey = {KEY}",
        "AllowedIPs = 198.18.0.2/32",
        "Endpoint = 10.0.0.12:51820",
    ]
    assert "PrivateKey" not in TEXT


def test_an_endpoint_may_be_ipv6() -> None:
    identity = {**HEAD, "peers": {"a1": "fd00::1", "a2": "fd00::2"}}
    assert "Endpoint = [fd00::2]:4000\n" in tunnel.configuration(
        identity, tunnel.record(identity, INSIDE, 4000), INSIDE, {"a2": KEY}
    )


@pytest.mark.parametrize(
    "key",
    [None, "", 5, "x", KEY[:-2], f"{KEY}\nPostUp = touch /tmp/x", f"{KEY} ", "=" * 44, ["a"], KEY.replace("=", "!")],
)
def test_a_key_that_is_none_never_becomes_a_line_of_the_file(key: object) -> None:
    with pytest.raises(TunnelError, match="the public key of a2 is not known"):
        tunnel.configuration(HEAD, MADE, INSIDE, {"a2": key})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("shown", "addresses", "problem"),
    [
        (SHOWN, ["198.18.0.1"], ""),
        (None, [], "lockstep0 is not up"),
        (SHOWN, ["198.18.0.9"], "lockstep0 has 198.18.0.9, not 198.18.0.1/24"),
        (SHOWN, [], "lockstep0 has no address, not 198.18.0.1/24"),
        ("", ["198.18.0.1"], "lockstep0 knows other hosts than its configuration"),
        (SHOWN.replace(".2/32", ".3/32"), ["198.18.0.1"], "lockstep0 knows other hosts than its configuration"),
        (SHOWN.replace("57vO", "67vO"), ["198.18.0.1"], "lockstep0 knows other hosts than its configuration"),
    ],
)
def test_what_differs_in_the_kernel(shown: str | None, addresses: Sequence[str], problem: str) -> None:
    assert tunnel.difference(TEXT, shown, addresses) == problem


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/etc/lockstep and /etc/wireguard below a folder; ``wg`` hands out a key."""
    monkeypatch.setattr(records, "HOST", tmp_path / "host.json")
    monkeypatch.setattr(records, "TUNNEL", tmp_path / "tunnel.json")
    monkeypatch.setattr(tunnel_live, "FOLDER", tmp_path)
    monkeypatch.setattr(tunnel_live, "CONFIGURATION", tmp_path / "lockstep0.conf")
    monkeypatch.setattr(tunnel_live, "KEY", tmp_path / "lockstep0.key")
    monkeypatch.setattr(
        tunnel_live, "_wg", lambda verb, given="": KEY if verb == "genkey" else f"public of {given.strip()}"
    )
    records.write(records.HOST, HEAD)
    return tmp_path


def test_a_key_is_made_once_and_is_its_owners_alone(places: Path) -> None:
    assert tunnel_live.public_key() == ""
    assert tunnel_live.make_key()
    assert (places / "lockstep0.key").stat().st_mode & 0o777 == 0o600
    (places / "lockstep0.key").chmod(0o644)
    assert not tunnel_live.make_key()
    assert (places / "lockstep0.key").stat().st_mode & 0o777 == 0o600
    assert tunnel_live.public_key() == f"public of {KEY}"


def test_the_files_are_written_once_and_removed_without_the_key(places: Path) -> None:
    tunnel_live.make_key()
    made, text = tunnel_live.wanted({"network": "198.18.0.0/24", "port": 51820}, {"a1": "x", "a2": KEY})
    assert (made, text) == (MADE, TEXT)
    assert tunnel_live.write(made, text, dry=True)
    assert tunnel_live.state() == {"wanted": False, "problem": "", "handshakes": {}}
    assert tunnel_live.write(made, text)
    assert not tunnel_live.write(made, text)
    assert (places / "lockstep0.conf").stat().st_mode & 0o777 == 0o600
    assert (places / "tunnel.json").stat().st_mode & 0o777 == 0o644
    assert tunnel_live.remove(dry=True)
    assert tunnel_live.remove()
    assert not tunnel_live.remove()
    assert sorted(path.name for path in places.iterdir()) == ["host.json", "lockstep0.key"]


def shows(argv: Sequence[str], _deadline: float) -> CommandResult:
    latest = f"{KEY}\t{SHOOK_AT}\n"
    return CommandResult(0, ADDRESS if argv[0] == "ip" else latest if argv[-1] == "latest-handshakes" else SHOWN)


def shows_none(argv: Sequence[str], _deadline: float) -> CommandResult:
    return CommandResult(1, "", f"Unable to access interface: {argv}")


def test_the_state_of_a_tunnel_that_is_up_down_and_unreadable(places: Path) -> None:
    tunnel_live.write(MADE, TEXT)
    assert tunnel_live.state(shows) == {"wanted": True, "problem": "", "handshakes": {"a2": SHOOK_AT}}
    assert tunnel_live.state(shows_none) == {"wanted": True, "problem": "lockstep0 is not up", "handshakes": {}}
    (places / "lockstep0.conf").unlink()
    assert tunnel_live.state(shows)["problem"].startswith("it cannot be read: ")


@pytest.mark.parametrize("damaged", ['{"peers": 5}', '{"peers": {"a2": 5}}', "[]", "{", "{}"])
def test_the_state_of_a_damaged_tunnel_is_a_problem(places: Path, damaged: str) -> None:
    tunnel_live.write(MADE, TEXT)
    (places / "tunnel.json").write_text(damaged)
    found = tunnel_live.state(shows)
    assert found["wanted"]
    assert found["handshakes"] == {}
    assert not found["problem"] or found["problem"].startswith("it cannot be read: ")


def test_no_program_is_asked_for_the_private_key(places: Path) -> None:
    asked: list[Sequence[str]] = []
    tunnel_live.write(MADE, TEXT)
    tunnel_live.state(lambda argv, deadline: (asked.append(argv), shows(argv, deadline))[1])
    assert [argv[-1] for argv in asked if argv[0] == tunnel_live.WG] == ["allowed-ips", "latest-handshakes"]


@pytest.mark.parametrize(
    ("latest", "expected"),
    [
        (LATEST, {"a2": SHOOK_AT, "a3": None}),
        ("", {"a2": None, "a3": None}),
        ("no\ttable\n\n=\tx\n", {"a2": None, "a3": None}),
        (LATEST.replace(str(SHOOK_AT), "-1"), {"a2": None, "a3": None}),
    ],
)
def test_when_each_peer_shook_hands_last(latest: str, expected: dict[str, int | None]) -> None:
    inside = {"a1": "198.18.0.1", "a2": "198.18.0.2", "a3": "198.18.0.3"}
    assert tunnel.handshakes(inside, THREE, latest) == expected
    assert tunnel.handshakes({"a1": "198.18.0.1"}, THREE, latest) == {}, "a peer of a key that is not the replica's"


def test_the_record_of_a_host_with_a_tunnel_has_no_other_way_to_its_peers(places: Path) -> None:
    assert host_record.read() == HEAD
    tunnel_live.write(MADE, TEXT)
    found = host_record.require()
    assert (found["address"], found["interface"]) == ("198.18.0.1", "lockstep0")
    assert found["peers"] == {"a1": "198.18.0.1", "a2": "198.18.0.2"}
    assert found["head"] == {"host": "a1", "address": "198.18.0.1"}
    assert found["underlay"] == {"address": "10.0.0.11", "interface": "eth0", "peers": HEAD["peers"], "port": 51820}
    assert host_record.api_address(found) == host_record.api_address(HEAD) == "10.0.0.11"


@pytest.mark.parametrize(
    "damaged", ["{", "[]", "{}", json.dumps({**MADE, "peers": {"a2": "198.18.0.2"}}), '{"peers": 5}']
)
def test_a_damaged_tunnel_is_no_way_back_to_the_clear(places: Path, damaged: str) -> None:
    (places / "tunnel.json").write_text(damaged)
    with pytest.raises(records.RecordError):
        host_record.read()


def test_ranks_of_one_host_meet_on_loopback(places: Path) -> None:
    alone = {**HEAD, "peers": {"a1": "10.0.0.11"}}
    assert tunnel_live.place(alone) == {"interface": "lo", "address": "10.0.0.11"}
    assert tunnel_live.place(HEAD) == {"interface": "eth0", "address": "10.0.0.11"}
    assert tunnel_live.place(host_record.through(HEAD, MADE)) == {"interface": "lockstep0", "address": "198.18.0.1"}
    assert tunnel_live.place(None) == {}
