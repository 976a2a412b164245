"""RDMA ports: which can carry a collective, and which are there for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import network as network_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import rdma
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.network_observations import RdmaPort
from tests.unit.module_utils.gates.test_network import IDENTITY, SEEN

CASES = Path(__file__).parents[2] / "fixtures/cases"


def sysfs(listing: str, root: Path) -> Path:
    """The files of a case's listing: a path and its content, and of a GID its type besides."""
    for line in listing.splitlines():
        path, _, content = line.partition(" ")
        value, kind = content, ""
        if "/gids/" in path:
            value, _, kind = content.partition(" ")
        file = root / Path(path).relative_to("/sys/class/infiniband")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
        if kind:
            types = file.parents[1] / "gid_attrs/types" / file.name
            types.parent.mkdir(parents=True, exist_ok=True)
            types.write_text(f"{kind}\n")
    return root


def verdict(ports: list[RdmaPort], demanded: bool = True) -> Any:
    seen = {**SEEN, "rdma": ports}
    return network_gate.evaluate(seen, IDENTITY, network_gate.Limits(rdma=demanded), 1.0)  # type: ignore[arg-type]


def test_a_roce_port_with_link_local_gids_alone_fails(tmp_path: Path) -> None:
    ports = rdma.read(sysfs((CASES / "rdma-only-link-local/infiniband.txt").read_text(), tmp_path))
    result = verdict(ports)
    assert (result.verdict, result.code) == ("fail", "rdma_down")
    assert "mlx5_bond_0/1 has no routed RoCE v2 GID" in result.cause
    assert verdict(ports, demanded=False).verdict == "pass"


def test_an_mlx5_port_that_is_ethernet_is_not_taken_for_infiniband(tmp_path: Path) -> None:
    ports = rdma.read(sysfs((CASES / "link-mlx5-is-ethernet/infiniband.txt").read_text(), tmp_path))
    assert [(port["device"], port["state"], port["link_layer"]) for port in ports] == [
        ("mlx5_0", "ACTIVE", "Ethernet"),
        ("mlx5_1", "ACTIVE", "Ethernet"),
    ]
    assert verdict(ports).code == "rdma_down"  # active, and without a GID: as the case has none


IB = {"gid": "fe80:0000:0000:0000:0200:00ff:fe00:0001", "type": "IB/RoCE v1"}
IP = {"gid": "0000:0000:0000:0000:0000:ffff:0a00:000b", "type": "RoCE v2"}


def port(device: str, layer: str, state: str = "ACTIVE", model: str = "MT4129", **gids: dict[str, str]) -> RdmaPort:
    return {
        "device": device, "port": "1", "state": state, "rate": "", "link_layer": layer, "model": model, "gids": gids,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gid", "is_routed"),
    [
        (IB, False),
        ({**IB, "type": "RoCE v2"}, False),
        ({**IP, "type": "IB/RoCE v1"}, False),
        (IP, True),
        ({"gid": "0000:0000:0000:0000:0000:ffff:a9fe:0102", "type": "RoCE v2"}, False),
        ({"gid": "2001:0db8:0000:0000:0000:0000:0000:0001", "type": "RoCE v2"}, True),
        ({"gid": "nonsense", "type": "RoCE v2"}, False),
    ],
)
def test_routed(gid: dict[str, str], is_routed: bool) -> None:
    assert rdma.routed(gid) is is_routed


@pytest.mark.parametrize(
    ("ports", "code"),
    [
        pytest.param([port("mlx5_0", "InfiniBand", a=IB)], "ok", id="InfiniBand needs no address"),
        pytest.param([port("mlx5_0", "Ethernet", a=IP)], "ok", id="RoCE with an address"),
        pytest.param(
            [*(port(f"mlx5_{n}", "InfiniBand", "DOWN") for n in range(8)), port("mlx5_8", "Ethernet", model="MT4125", a=IP)],
            "rdma_down", id="all rails down, the management port up",
        ),
        pytest.param(
            [*(port(f"mlx5_{n}", "Ethernet", "DOWN") for n in range(4)), port("mlx5_4", "Ethernet", model="MT4125", a=IP)],
            "rdma_down", id="the same where rails are RoCE",
        ),
        pytest.param(
            [port("mlx5_0", "InfiniBand", "DOWN"), port("mlx5_1", "Ethernet", model="MT4125", a=IP)],
            "rdma_down", id="one of each: InfiniBand is the rail",
        ),
        pytest.param(
            [port("mlx5_0", "InfiniBand", a=IB), port("mlx5_1", "InfiniBand", "DOWN")], "ok", id="one rail of two is down",
        ),
        pytest.param([], "rdma_down", id="none"),
    ],
)  # fmt: skip
def test_rails(ports: list[RdmaPort], code: str) -> None:
    result = verdict(ports)
    assert result.code == code
    assert ("of another kind can" in result.cause) == (code == "rdma_down" and len(ports) > 1)


def test_a_rail_without_an_address_is_warned_of_where_rdma_is_demanded() -> None:
    ports = [port("mlx5_0", "Ethernet", a=IP), port("mlx5_1", "Ethernet", a={**IB, "type": "RoCE v2"})]
    said = "RDMA on a1: mlx5_1/1 has no routed RoCE v2 GID: its interface has no IP address"
    assert said in verdict(ports).warnings
    assert said not in verdict(ports, demanded=False).warnings
